"""Rows of activations: those that are asked for, in that order, and no more memory than they take."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from finetune.cache import activation_reader, entry_writer
from finetune.cache.activation_reader import FILE, ActivationReader
from finetune.system import documents

CPU = torch.device("cpu")


def entry(folder: Path, values: np.ndarray[Any, Any], channels_last: bool) -> Path:
    """Write an entry of the store as `activations` does."""
    folder.mkdir()
    (folder / FILE).write_bytes(values.tobytes())
    about = {"type": values.dtype.name, "shape": list(values.shape), "channels_last": channels_last}
    documents.write_json(folder / entry_writer.ABOUT, about)
    return folder


@pytest.fixture(params=["read", "whole"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read from the file, and rows of an entry so small that it is kept in memory."""
    if request.param == "read":
        monkeypatch.setattr(activation_reader, "MAX_BYTES_IN_MEMORY", 0)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_rows_come_in_the_order_asked_for(tmp_path: Path, kind: str) -> None:
    """As float32, and images as (C, H, W), however they lie in the file; the same row twice is two rows."""
    values = np.random.default_rng(0).normal(size=(7, 4, 5, 3)).astype(kind)
    last = ActivationReader(entry(tmp_path / "last", values, channels_last=True))
    first = ActivationReader(entry(tmp_path / "first", values, channels_last=False))
    expected = torch.from_numpy(values[[6, 0, 3, 0]].astype(np.float32))
    assert len(last) == 7
    assert torch.equal(first.take([6, 0, 3, 0], CPU), expected)
    assert torch.equal(last.take([6, 0, 3, 0], CPU), expected.permute(0, 3, 1, 2))
    assert last.take([1], CPU).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("_either")
def test_a_deleted_entry_can_still_be_read(tmp_path: Path) -> None:
    """Another process may evict it while a run uses it."""
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    opened = ActivationReader(entry(tmp_path / "entry", values, channels_last=False))
    shutil.rmtree(tmp_path / "entry")
    assert opened.take([5, 2], CPU).tolist() == [[10, 11], [4, 5]]


def test_a_file_cut_short_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where it is read whole, else at the row that is not there: never numbers from nowhere."""
    folder = entry(tmp_path / "entry", np.zeros((6, 2), dtype=np.float32), channels_last=False)
    os.truncate(folder / FILE, 40)
    with pytest.raises(OSError, match=r"rows\.bin is damaged: it ends before row 6"):
        ActivationReader(folder)
    monkeypatch.setattr(activation_reader, "MAX_BYTES_IN_MEMORY", 0)
    with pytest.raises(OSError, match=r"rows\.bin is damaged: it ends before row 6"):
        ActivationReader(folder).take([0, 5], CPU)


def test_reading_much_takes_little_memory(tmp_path: Path) -> None:
    """Of 256 MB, all of them read in batches of 8 MB."""
    folder = entry(tmp_path / "entry", np.zeros((256, 2**18), dtype=np.float32), channels_last=False)
    opened, process = ActivationReader(folder), psutil.Process()
    before = most = process.memory_info().rss
    for start in range(0, 256, 8):
        opened.take(range(start, start + 8), CPU)
        most = max(most, process.memory_info().rss)
    assert most - before < 100e6

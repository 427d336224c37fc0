"""Checksums inside files: every flipped bit of a checkpoint is found, which torch.load() does not do."""

import contextlib
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.errors import CorruptFileError, UserError
from finetune.models.classifier import build_classifier, build_network
from finetune.models.weights_file import read_weights
from finetune.run.checkpoint import load_checkpoint, save_checkpoint
from finetune.system import checksums
from tests.support.faults import FAULTS


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a small checkpoint file."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    model.blocks = model.blocks[:1]
    save_checkpoint(tmp_path / "last.pt", model, None, [{"epoch": 1}], {"run_id": "x"})
    return tmp_path / "last.pt"


def test_every_flipped_bit_of_a_checkpoint_is_found(checkpoint: Path) -> None:
    """In every third byte of the file: headers, pickle, tensors, padding, directory, the checksum itself."""
    content = checkpoint.read_bytes()
    undetected = []
    for place in [*range(0, len(content), 3), *range(len(content) - 40, len(content))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        checkpoint.write_bytes(damaged)
        if checksums.zip_fault(checkpoint) is None:
            undetected.append(place)
    assert undetected == []


@pytest.mark.parametrize("kind", ["truncate", "zeros", "empty"])
def test_a_checkpoint_that_is_cut_short_or_overwritten_is_found(kind: str, checkpoint: Path) -> None:
    """Anywhere, and it is never loaded in part."""
    content = checkpoint.read_bytes()
    for seed in range(50):
        checkpoint.write_bytes(content)
        FAULTS[kind](checkpoint, random.Random(seed))
        if checkpoint.read_bytes() != content:
            with pytest.raises(CorruptFileError, match=r"last\.pt: can't be read as a checkpoint"):
                load_checkpoint(checkpoint)


def test_a_checkpoint_is_a_zip_archive_like_any_other(checkpoint: Path) -> None:
    """What reads torch's files reads it; the checksum is the archive's comment."""
    with zipfile.ZipFile(checkpoint) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"crc32 ")
    assert torch.load(checkpoint, weights_only=True)["run_id"] == "x"


def test_a_checkpoint_of_an_earlier_version_is_read_and_checked_part_by_part(tmp_path: Path) -> None:
    """It has no checksum of the whole; a flip in a tensor is found by the archive's own."""
    path = tmp_path / "last.pt"
    torch.save({"format": 1, "run_id": "x", "history": [], "model": {"a": torch.ones(1000)}}, path)
    assert load_checkpoint(path)["history"] == []
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="checksum of its part"):
        load_checkpoint(path)


def test_torch_itself_does_not_notice(tmp_path: Path) -> None:
    """The reason for all this: should torch.load() begin to compare checksums, this can go."""
    path = tmp_path / "some.pt"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["a"], torch.ones(1000))


def test_any_flip_in_checked_json_is_found(tmp_path: Path) -> None:
    """A value that is changed, a name, or the checksum itself."""
    path = tmp_path / "about.json"
    value: dict[str, Any] = {"rows": 12, "type": "float16", "shape": [12, 3], "half": 0.1}
    checksums.write_checked_json(path, value)
    assert checksums.read_checked_json(path) == value
    content = path.read_bytes()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):  # else white space, or the case of a digit
            assert checksums.read_checked_json(path) == value
    path.unlink()
    assert checksums.read_checked_json(path) is None


def test_what_is_set_aside_keeps_its_content_and_is_numbered(tmp_path: Path) -> None:
    """The second one does not replace the first."""
    for number in (1, 2):
        (tmp_path / "last.pt").write_text(str(number))
        assert checksums.quarantine(tmp_path / "last.pt").name == f"last.pt.damaged-{number}"
        assert (tmp_path / f"last.pt.damaged-{number}").read_text() == str(number)
    assert not (tmp_path / "last.pt").exists()


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    """A flip in a tensor, which torch.load() would take; one that torch wrote without checksums is believed."""
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth is damaged \(the checksum of its part .* Copy or export it"):
        read_weights(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(1000)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(path).state["a"], torch.ones(1000))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """With the tensor's name."""
    torch.save({"a": torch.ones(3), "b": torch.tensor([1.0, float("nan")])}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth holds numbers that are not finite, in b"):
        read_weights(tmp_path / "weights.pth")

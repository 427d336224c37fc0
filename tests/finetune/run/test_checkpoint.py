"""Checkpoint files: whole or not there, and an error that says why."""

import errno
import resource
from pathlib import Path

import pytest
import torch

from finetune.errors import UserError
from finetune.models.classifier import build_classifier, build_network
from finetune.run.checkpoint import load_checkpoint, save_checkpoint
from finetune.system.atomic import WriteError


def test_a_checkpoint_that_can_not_be_written_says_why_and_leaves_the_one_before(tmp_path: Path) -> None:
    """The system's own error comes out, not that of torch's writer, which breaks off in the middle of the file."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    path = tmp_path / "last.pt"
    fields = {"run_id": "x", "micro_batch": 4, "under_way": {"losses": torch.ones(2)}}
    save_checkpoint(path, model, None, [], fields)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            WriteError, match=r"last\.pt can't be written \(File too large; 3 MB needed, .* free\)"
        ) as told:
            save_checkpoint(path, model, None, [{"epoch": 1}], {"run_id": "x"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert told.value.errno == errno.EFBIG
    content = load_checkpoint(path)
    assert (content["history"], content["micro_batch"]) == ([], 4)
    assert torch.equal(content["under_way"]["losses"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    """Missing, or something else."""
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    (tmp_path / "last.pt").write_text("not torch's")
    with pytest.raises(UserError, match=r"last\.pt: can't be read as a checkpoint"):
        load_checkpoint(tmp_path / "last.pt")

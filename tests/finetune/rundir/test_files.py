"""The run directory's files: whole or not there, and readable after a crash."""

import json
from pathlib import Path

import pytest

from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import replacing


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """A crash in the middle of writing loses nothing."""
    path = tmp_path / keys.SUMMARY
    documents.write_json(path, {"state": "finished"})
    with pytest.raises(ValueError, match="JSON"):
        documents.write_json(path, {"state": float("nan")})

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert documents.read_json(path) == {"state": "finished"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_last_line_is_dropped_and_counted(tmp_path: Path) -> None:
    """A kill in the middle of a line costs that line, not the history."""
    rows = [{"epoch": 1, "val/accuracy": 0.5}, {"epoch": 2, "val/accuracy": 0.6}]
    files.write_history(tmp_path, rows)
    with (tmp_path / keys.HISTORY).open("a") as file:
        file.write('{"epoch": 3, "val/acc')
    assert files.read_history(tmp_path) == (rows, 1)


def test_config_keeps_its_fields_and_provenance(tmp_path: Path) -> None:
    """What is written is read back, provenance under its own key, file names with odd letters too."""
    files.write_config(tmp_path, {"lr": 0.1, "data": "Fotos/Äpfel"}, {"git_commit": None})
    assert files.read_config(tmp_path) == {"lr": 0.1, "data": "Fotos/Äpfel", "provenance": {"git_commit": None}}


def test_status_tells_finished_failed_killed_and_unfinished(tmp_path: Path) -> None:
    """The summary alone means finished; before it, what the run last said counts."""
    assert files.status(tmp_path) == ("unfinished", "")
    files.write_state(tmp_path, "running")
    assert files.status(tmp_path) == ("unfinished", "")
    files.write_state(tmp_path, "failed", "no luck")
    assert files.status(tmp_path) == ("failed", "no luck")
    (tmp_path / keys.SUMMARY).write_text(json.dumps({"state": "finished"}))
    assert files.status(tmp_path) == ("finished", "")

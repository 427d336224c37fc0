"""Reading and writing the files of a run directory (keys.py lists them).

A run directory is the only channel between a run and everything that looks at it: agents, `analysis`, `predict`, a
person with `cat`. It may come from elsewhere: reading is bounded, runs nothing, and raises few kinds of errors.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from finetune.errors import CorruptFileError
from finetune.rundir.keys import CONFIG, HISTORY, STATE, SUMMARY
from finetune.system import documents
from finetune.system.atomic import check_write_guard, raising_write_error, write_atomic
from finetune.system.documents import (
    MAX_HISTORY_BYTES,
    MAX_JSON_BYTES,
    parse_json_object,
    read_bounded_text,
    read_json_or_empty,
    write_json,
)
from finetune.system.redaction import redact, redact_values

MAX_LINE_BYTES = 2**20  # of a history


def write_config(run_dir: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write the resolved fields and, under `provenance`, machine, data, weights and versions."""
    fields = redact_values({**config, "provenance": dict(provenance)}, environment=False)
    content = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    write_atomic(run_dir / CONFIG, content)


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the fields of `config.yaml`, `provenance` among them.

    Raises:
        FileNotFoundError: the run has not started yet.
        CorruptFileError: the file is no YAML mapping of fields.
    """
    path = run_dir / CONFIG
    try:
        content = documents.load_yaml(read_bounded_text(path, MAX_JSON_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path} is damaged: it is not YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("provenance", {}), dict):
        raise CorruptFileError(f"{path} is damaged: it holds no fields")
    return {str(name): value for name, value in content.items()}


def write_history(run_dir: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the history by `rows`, atomically (a resumed run returns to the history of its checkpoint)."""
    write_atomic(run_dir / HISTORY, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def append_history(run_dir: Path, row: Mapping[str, Any]) -> None:
    """Append one epoch's row. A crash can tear this line, which `read_history` drops."""
    check_write_guard(run_dir / HISTORY)
    with raising_write_error(run_dir / HISTORY), (run_dir / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def read_history(run_dir: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the history, and how many torn lines were dropped (more than 1 means a damaged file).

    A row has a number as its epoch; its other values are not checked. Whatever lies beyond MAX_HISTORY_BYTES is not
    read, and counts as one torn line.
    """
    path = run_dir / HISTORY
    rows: list[dict[str, Any]] = []
    torn = size = 0
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            size += len(line)
            if size > MAX_HISTORY_BYTES:
                return rows, torn + 1
            if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                line = _rest_of_line(file)
            try:
                row = parse_json_object(line.decode("utf-8", errors="replace"))
            except (ValueError, TypeError, RecursionError):
                row = {}
            if isinstance(row.get("epoch"), int | float):
                rows.append(row)
            else:
                torn += 1
    return rows, torn


def _rest_of_line(file: IO[bytes]) -> bytes:
    """Skip the rest of a line that is too long for a row; return text that is not JSON in its place."""
    while (part := file.readline(MAX_LINE_BYTES)) and not part.endswith(b"\n"):
        if file.tell() > MAX_HISTORY_BYTES:
            break
    return b"too long"


def write_state(run_dir: Path, state: str, reason: str = "", cause: str = "") -> None:
    """Record the state of the run: running, finished, failed (an error in the run) or killed (by a signal).

    Args:
        reason: secrets in it are redacted.
        cause: of a failure, one of `failures.CAUSES`.
    """
    write_json(run_dir / STATE, {"state": state, "reason": redact(reason), "cause": cause})


def is_run_dir(path: Path) -> bool:
    """Whether `path` holds a run that has at least started."""
    return (path / CONFIG).is_file()


def find_runs(folder: Path) -> list[Path]:
    """Return the run directories directly inside `folder`, or `folder` itself if it is one, sorted by name."""
    if is_run_dir(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_run_dir(path))


def status(run_dir: Path) -> tuple[str, str]:
    """Return the run's state and reason: finished, failed, killed, or unfinished (running, or ended without a record).

    `claim.is_alive` tells whether an unfinished run is alive.
    """
    if (run_dir / SUMMARY).is_file():
        intact = bool(read_json_or_empty(run_dir / SUMMARY))
        return ("finished", "") if intact else ("unfinished", f"{SUMMARY} is damaged")
    recorded = read_json_or_empty(run_dir / STATE)
    if recorded.get("state") in ("failed", "killed"):
        return str(recorded["state"]), str(recorded.get("reason", ""))
    return "unfinished", ""

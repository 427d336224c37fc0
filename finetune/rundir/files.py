"""What a run leaves behind: the run directory, its files, their keys, and how they are written and read.

A run directory is the only channel between a run and everything that looks at it: agents, `analysis`, `predict`, a
person with `cat`. This file imports neither torch nor anything else of the package that does.

All of it may come from elsewhere: reading is bounded, runs nothing, and raises few kinds of errors.

    config.yaml      every resolved field, and `provenance`: commit, versions, data fingerprint, weights hash, classes
    history.jsonl    one line an epoch, HISTORY_KEYS
    summary.json     written once, at the end, SUMMARY_KEYS; its presence means that the run is finished
    predictions.csv  one row a test picture: path (inside the data folder), label, prediction, probability/<class>
    thumbnails.zip   small pictures of the test set, the ones that the prediction grid shows (see thumbnails.py)
    attention.zip    the same pictures with what the network looked at, if asked for (see gradcam.py)
    splits.csv       path, label, split of every picture
    best.pt last.pt  the checkpoint that val chose; the last one, with all that a resume needs (see retention.py)
    epoch-0001.pt    with `keep: every`, the checkpoint of each epoch
    previous.pt      the one before last.pt, gone on from should that be damaged; deleted once the run is finished
    SHA256SUMS       written before the summary: checksums of the files that results rest on (see integrity.py)
    NAME.damaged-N   a file that was found damaged, set aside; it can be deleted
    log.txt          what the run printed
    state.json       the state the run last reported, and why
    wandb-ID.json    what the W&B run of this id has been sent (see mirror_process.py); wandb.json beside the run
    directories
                     names the W&B sweep they belong to
    claim-N.json     who runs it (see claim.py); the newest one's modification time is the heartbeat
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
    """Write the resolved fields and, under `provenance`, where they were run, on what, with which versions."""
    fields = redact_values({**config, "provenance": dict(provenance)}, environment=False)
    content = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    write_atomic(run_dir / CONFIG, content)


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the fields of `config.yaml`, `provenance` among them.

    Raises:
        FileNotFoundError: the run has not started yet.
        CorruptFileError: it holds something else.
    """
    path = run_dir / CONFIG
    try:
        content = documents.load_yaml(read_bounded_text(path, MAX_JSON_BYTES))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{path} is damaged: it is no YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("provenance", {}), dict):
        raise CorruptFileError(f"{path} is damaged: it holds no fields")
    return {str(name): value for name, value in content.items()}


def write_history(run_dir: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the history by `rows`, atomically (a resumed run goes back to its checkpoint's)."""
    write_atomic(run_dir / HISTORY, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def append_history(run_dir: Path, row: Mapping[str, Any]) -> None:
    """Append one epoch's row. A crash can tear this line, which `read_history` drops."""
    check_write_guard(run_dir / HISTORY)
    with raising_write_error(run_dir / HISTORY), (run_dir / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def read_history(run_dir: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the history, and how many torn lines were dropped (more than 1 means a damaged file).

    A row has a number as its epoch; whatever else it should have is not looked at. What lies beyond MOST_HISTORY is not
    read, and counts as one such line.
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
    """Pass over the rest of a line that is too long to be one; what stands for it is no JSON."""
    while (part := file.readline(MAX_LINE_BYTES)) and not part.endswith(b"\n"):
        if file.tell() > MAX_HISTORY_BYTES:
            break
    return b"too long"


def write_state(run_dir: Path, state: str, reason: str = "", cause: str = "") -> None:
    """Note the state the run is in: running, finished, failed (an error in the run) or killed (by a signal).

    Args:
        reason: secrets are taken out of it.
        cause: of a failure, one of `causes.CAUSES`.
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
    """Return the run's state and reason: finished, failed, killed, or unfinished (running, or ended without a word).

    Whether an unfinished run is alive is for `claim.is_alive` to say.
    """
    if (run_dir / SUMMARY).is_file():
        whole = bool(read_json_or_empty(run_dir / SUMMARY))
        return ("finished", "") if whole else ("unfinished", f"{SUMMARY} is damaged")
    told = read_json_or_empty(run_dir / STATE)
    if told.get("state") in ("failed", "killed"):
        return str(told["state"]), str(told.get("reason", ""))
    return "unfinished", ""

"""What must hold of run directories after any fault: intact files, every epoch once, one writer at a time, and the
results of undisturbed runs, bit for bit."""

import csv
import json
import re
import zipfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import UserError
from finetune.run.checkpoint import load_checkpoint
from finetune.rundir import claim, files, keys
from finetune.system import documents

VARYING = ("second", "memory", "energy")  # in the names of keys whose values differ from run to run
OWNED = (keys.CONFIG, keys.HISTORY, keys.SUMMARY, keys.PREDICTIONS, keys.BEST, keys.LAST)  # only a run's owner writes


def violations(run_dir: Path, reference: Path) -> list[str]:
    """Return all that is wrong with a run that should be finished and equal to `reference`."""
    if not (run_dir / keys.SUMMARY).exists():
        return [f"{run_dir.name}: not finished"]
    found = [*_unreadable(run_dir), *_unclean(run_dir, reference)] or _differences(run_dir, reference)
    return [f"{run_dir.name}: {problem}" for problem in found]


def _unreadable(run_dir: Path) -> Iterable[str]:
    """Yield the files that can't be read, or whose content contradicts the others."""
    for path in sorted(run_dir.iterdir()):
        try:
            _read(path)
        except (ValueError, OSError, AssertionError, zipfile.BadZipFile, yaml.YAMLError, UserError) as error:
            yield f"{path.name} can't be read: {error}"
    if claim.is_alive(run_dir):
        yield "its claim is not released"
    rows, torn = files.read_history(run_dir)
    epochs = [row.get("epoch") for row in rows]
    if torn or epochs != list(range(1, len(rows) + 1)):
        yield f"history has epochs {epochs} and {torn} torn lines"
    summary = documents.read_json(run_dir / keys.SUMMARY) or {}
    if summary.get("epochs") != len(rows):
        yield f"summary has {summary.get('epochs')} epochs, history has {len(rows)}"


def _read(path: Path) -> None:
    """Read a file, or raise if it is damaged."""
    if path.suffix == ".json" and not path.name.startswith("claim-"):  # an older claim may be torn
        json.loads(path.read_text())
    elif path.suffix == ".yaml":
        documents.load_yaml(path.read_text())
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
    elif path.suffix == ".pt":
        load_checkpoint(path)
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1


def _unclean(run_dir: Path, reference: Path) -> Iterable[str]:
    """Yield the stray and missing files."""
    names, expected = _names(run_dir), _names(reference)
    if strays := names - expected:
        yield f"strays: {', '.join(sorted(strays))}"
    if missing := expected - names:
        yield f"missing: {', '.join(sorted(missing))}"


def _names(run_dir: Path) -> set[str]:
    """Return the names of a run's files, without those that depend on how often it was started."""
    varying = re.compile(rf"claim-\d+\.json|.+\.damaged-\d+|{re.escape(keys.LOG)}")
    return {path.name for path in run_dir.iterdir() if not varying.fullmatch(path.name)}


def _differences(run_dir: Path, reference: Path) -> Iterable[str]:
    """Yield the differences of two finished runs, apart from times, memory and energy."""
    for name in (keys.BEST, keys.LAST):
        weights, expected = (load_checkpoint(folder / name)["model"] for folder in (run_dir, reference))
        if weights.keys() != expected.keys() or not all(weights[key].equal(expected[key]) for key in weights):
            yield f"{name} has other weights"
    if _constant_values(run_dir) != _constant_values(reference):
        yield "history or summary differ"
    for name in (keys.PREDICTIONS, keys.SPLITS):
        if (run_dir / name).read_bytes() != (reference / name).read_bytes():
            yield f"{name} differs"


def _constant_values(run_dir: Path) -> list[dict[str, Any]]:
    rows = [*files.read_history(run_dir)[0], documents.read_json(run_dir / keys.SUMMARY) or {}]
    return [{key: value for key, value in row.items() if not any(word in key for word in VARYING)} for row in rows]


def overlapping_writers(log: Path) -> list[str]:
    """Return the run directories into which a process wrote results after another one had begun to.

    Args:
        log: CHAOS_LOG, see failpoints.py.
    """
    writers: dict[str, list[str]] = {}
    for line in sorted(log.read_text().splitlines(), key=lambda line: int(line.partition(" ")[0])):
        _, pid, operation, path = line.split(" ", 3)
        folder, name = str(Path(path).parent), Path(path).name
        if operation == "rename":
            name = re.sub(r"^\.(.+)\.[0-9a-f]{8}\.tmp$", r"\1", name)
        if (operation == "rename" and name in OWNED) or (operation == "write" and name == keys.HISTORY):
            writers.setdefault(folder, []).append(pid)
    turns = {folder: [pid for pid, _ in groupby(pids)] for folder, pids in writers.items()}
    return [
        f"{Path(folder).name}: written by processes {' '.join(pids)} in turns"
        for folder, pids in turns.items()
        if len(pids) != len(set(pids))
    ]


def temporary_files(folder: Path) -> list[str]:
    """Return the temporary files anywhere below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*.tmp"))

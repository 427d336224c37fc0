"""What must hold of run directories whatever has happened: whole files, every epoch once, one writer at a time, and
the results of undisturbed runs, bit for bit."""

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

# Times, energy and memory are not the same twice.
VARYING = ("second", "memory", "energy")
# Written by the owner of a run alone, and by no one else.
OWNED = (keys.CONFIG, keys.HISTORY, keys.SUMMARY, keys.PREDICTIONS, keys.BEST, keys.LAST)


def faults_of(run_dir: Path, reference: Path) -> list[str]:
    """Return all that is wrong with a run that should be finished and the same as `reference`."""
    if not (run_dir / keys.SUMMARY).exists():
        return [f"{run_dir.name}: not finished"]
    told = [f"{run_dir.name}: {fault}" for fault in (*_unreadable(run_dir), *_unclean(run_dir, reference))]
    return told or [f"{run_dir.name}: {fault}" for fault in _differences(run_dir, reference)]


def _unreadable(run_dir: Path) -> Iterable[str]:
    """Yield the files that can't be read, or do not hold what they should."""
    for path in sorted(run_dir.iterdir()):
        try:
            if path.suffix == ".json" and not path.name.startswith("claim-"):  # of those, the newest one counts
                json.loads(path.read_text())
            elif path.suffix == ".yaml":
                yaml.safe_load(path.read_text())
            elif path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    assert archive.testzip() is None
            elif path.suffix == ".pt":
                load_checkpoint(path)
            elif path.suffix == ".csv":
                with path.open(newline="") as file:
                    assert len({len(row) for row in csv.reader(file)}) == 1
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
        yield f"summary tells {summary.get('epochs')} epochs, history has {len(rows)}"


def _unclean(run_dir: Path, reference: Path) -> Iterable[str]:
    """Yield what should not be there, and what is missing."""
    names, expected = _names(run_dir), _names(reference)
    if strays := names - expected:
        yield f"strays: {', '.join(sorted(strays))}"
    if missing := expected - names:
        yield f"missing: {', '.join(sorted(missing))}"


def _names(run_dir: Path) -> set[str]:
    """Return the names of a run's files, without those that depend on how, and how often, it was started."""
    names = {path.name for path in run_dir.iterdir()}
    told = re.compile(r"claim-\d+\.json|.+\.damaged-\d+")
    return {name for name in names if name != keys.LOG and not told.fullmatch(name)}


def _differences(run_dir: Path, reference: Path) -> Iterable[str]:
    """Yield in what two finished runs differ, what varies left out."""
    for name in (keys.BEST, keys.LAST):
        weights, others = (load_checkpoint(folder / name)["model"] for folder in (run_dir, reference))
        if weights.keys() != others.keys() or not all(weights[key].equal(others[key]) for key in weights):
            yield f"{name} has other weights"
    if _constant(run_dir) != _constant(reference):
        yield "history or summary differ"
    for name in (keys.PREDICTIONS, keys.SPLITS):
        if (run_dir / name).read_bytes() != (reference / name).read_bytes():
            yield f"{name} differs"


def _constant(run_dir: Path) -> list[dict[str, Any]]:
    rows = [*files.read_history(run_dir)[0], documents.read_json(run_dir / keys.SUMMARY) or {}]
    return [{key: value for key, value in row.items() if not any(word in key for word in VARYING)} for row in rows]


def overlaps(log: Path) -> list[str]:
    """Return the run directories into which one process put results after another one had begun to (see failpoints.py).

    Args:
        log: CHAOS_LOG.
    """
    writers: dict[str, list[str]] = {}
    for line in sorted(log.read_text().splitlines(), key=lambda line: int(line.partition(" ")[0])):
        _, pid, what, path = line.split(" ", 3)
        place = Path(path)
        name = place.name if what != "rename" else re.sub(r"^\.(.+)\.[0-9a-f]{8}\.tmp$", r"\1", place.name)
        if (what == "rename" and name in OWNED) or (what == "write" and name == keys.HISTORY):
            writers.setdefault(str(place.parent), []).append(pid)
    told = []
    for folder, pids in writers.items():
        turns = [pid for pid, _ in groupby(pids)]
        if len(turns) != len(set(turns)):
            told.append(f"{Path(folder).name}: written by processes {' '.join(turns)} in turns")
    return told


def strays_in(folder: Path) -> list[str]:
    """Return temporary files anywhere below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*.tmp"))

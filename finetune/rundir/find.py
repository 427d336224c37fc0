"""Which network is meant by RUN: a checkpoint, a run directory, the best run of a sweep, or `best` of the newest one.

This file does not load torch.
"""

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.rundir import files, keys
from finetune.system import documents

logger = logging.getLogger(__name__)

WORD = "best"
HELP = f"a run directory, a checkpoint file, a sweep's folder (its best run), or `{WORD}`: the newest sweep's best run"
RUNS, REPORTS = Path("runs"), Path("reports")
MOST_NAMED = 8


def find_checkpoint(given: str, runs: Path = RUNS, reports: Path = REPORTS) -> Path:
    """Return the checkpoint that val chose of the run that is meant.

    Args:
        given: as the command line has it. `best` is always the word; a file of that name is ./best.
        runs: holds sweeps, for `best`.
        reports: holds what `analysis` wrote, a folder a sweep.

    Raises:
        UserError: there is none.
    """
    if given == WORD:
        return _best_of(_newest_sweep(runs), reports)
    place = Path(given)
    if not place.is_dir():
        return place
    if (place / keys.BEST).is_file():
        return place / keys.BEST
    if files.is_run_dir(place):
        raise UserError(f"{place}: holds no {keys.BEST}; {_why_without(place)}")
    if files.find_runs(place):
        return _best_of(place, reports)
    sweeps = find_sweeps(place)
    if sweeps:
        raise UserError(f"{place}: holds sweeps, not runs. Name one of them: {_listed(sweeps)}")
    raise UserError(f"{place}: holds no {keys.BEST} and no runs; is it a run directory, and has an epoch finished?")


def _best_of(sweep: Path, reports: Path) -> Path:
    """Return the checkpoint of a sweep's best run: the one that its report chose, else the best by val."""
    finished = {run: summary for run in files.find_runs(sweep) if (summary := _summary(run)) is not None}
    if not finished:
        raise UserError(f"{sweep}: no run is finished yet. Name one of its runs to use what it has so far")
    chosen, why = _reported(sweep, finished, reports), f"as {reports / sweep.resolve().name / 'report.json'} has it"
    if chosen is None:
        _check_one_data(sweep, finished)
        chosen = min(finished, key=lambda run: (*_rank(finished[run]), run.name))
        val = finished[chosen]["best/val_accuracy"]
        why = f"of {len(finished)} finished runs it has the highest val accuracy, {val:.1%}"
    logger.info(f"the best run of {sweep} is {chosen.name}: {why}")
    if not (chosen / keys.BEST).is_file():
        raise UserError(f"{chosen}: holds no {keys.BEST}; {_why_without(chosen)}")
    return chosen / keys.BEST


def _summary(run: Path) -> dict[str, Any] | None:
    """Return a finished run's summary, or None where it can't be ranked."""
    try:
        summary = documents.read_json(run / keys.SUMMARY) or {}
    except (OSError, ValueError, TypeError):
        return None
    accuracy = summary.get("best/val_accuracy")
    return summary if isinstance(accuracy, int | float) and math.isfinite(accuracy) else None


def _rank(summary: dict[str, Any]) -> tuple[float, float]:
    """Return what finished runs are sorted by, the best first: val accuracy, then val loss (as `analysis` does)."""
    loss = summary.get("best/val_loss")
    return -summary["best/val_accuracy"], float(loss) if isinstance(loss, int | float) else math.inf


def _reported(sweep: Path, finished: dict[Path, dict[str, Any]], reports: Path) -> Path | None:
    """Return the run that the sweep's report chose, or None where there is none that knows all of the runs."""
    file = reports / sweep.resolve().name / "report.json"
    try:
        name = (documents.read_json(file) or {}).get("best_run")
        newest = max((run / keys.SUMMARY).stat().st_mtime for run in finished)
        known = file.stat().st_mtime >= newest
    except (OSError, ValueError, TypeError):
        return None
    return next((run for run in finished if known and run.name == name), None)


def _check_one_data(sweep: Path, finished: dict[Path, dict[str, Any]]) -> None:
    """Raise UserError if val accuracies were measured on different images."""
    prints = {files.read_config(run).get("provenance", {}).get("data_fingerprint") for run in finished}
    if len(prints) > 1:
        raise UserError(
            f"{sweep}: its runs used {len(prints)} different image sets, so their val accuracies "
            "do not compare. Name one of its runs"
        )


def _why_without(run: Path) -> str:
    if any(run.glob("wandb-*.json")) and not any(run.glob("claim-*.json")):
        return "it was fetched from W&B, which has no checkpoints. Copy that file from the machine that ran it"
    if (run / keys.SUMMARY).is_file():
        return "its weights were not kept (keep: none, or freed by finetune.gc). Copy it back, or run it again"
    return "has it finished an epoch yet?"


def find_sweeps(folder: Path) -> list[Path]:
    """Return the folders directly below `folder` that hold runs or are a run, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and files.find_runs(path))


def _newest_sweep(runs: Path) -> Path:
    """Return the sweep in which a run last started, made progress or ended."""
    sweeps = [folder for folder in find_sweeps(runs) if not files.is_run_dir(folder)]
    if not sweeps:
        raise UserError(f"{WORD}: {runs}/ holds no sweep yet. Run one first (make demo), or name a run directory")
    return max(sweeps, key=last_change)


def last_change(sweep: Path) -> float:
    """Return when a run of the sweep last started, made progress or ended, in seconds since the epoch."""
    names = (keys.CONFIG, keys.HISTORY, keys.SUMMARY)
    paths = [run / name for run in files.find_runs(sweep) for name in names]
    return max(file.stat().st_mtime for file in paths if file.exists())


def _listed(paths: list[Path]) -> str:
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return ", ".join(map(str, paths[:MOST_NAMED])) + more


def runs_in_reports(reports: Path) -> set[str]:
    """Return the names of all runs that a report.json mentions, as `best_run` or anywhere else.

    Raises:
        UserError: a report can't be read, so that the runs it mentions are unknown.
    """
    names: set[str] = set()
    for path in sorted(reports.glob("**/report.json")):
        try:
            names.update(_strings(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read ({error}): make the report again, or delete it") from error
    return names


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield Path(value).name  # a path to a run names it, too
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)

"""Finds the checkpoint that RUN names: a file, a run directory, a sweep's best run, or `best` of the newest sweep."""

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
MAX_LISTED = 8


def find_checkpoint(name: str, runs: Path = RUNS, reports: Path = REPORTS) -> Path:
    """Return the best checkpoint by val of the run that `name` names.

    Args:
        name: as on the command line. `best` is always the keyword; a file of that name is ./best.
        runs: folder of sweeps, for `best`.
        reports: output folder of `analysis`, with one folder per sweep.

    Raises:
        UserError: there is none.
    """
    if name == WORD:
        return _best_of(_newest_sweep(runs), reports)
    path = Path(name)
    if not path.is_dir():
        return path
    if files.is_run_dir(path) or (path / keys.BEST).is_file():
        return _best_file(path)
    if files.find_runs(path):
        return _best_of(path, reports)
    sweeps = find_sweeps(path)
    if sweeps:
        raise UserError(f"{path}: holds sweeps, not runs. Name one of them: {_listed(sweeps)}")
    raise UserError(f"{path}: holds no {keys.BEST} and no runs; is it a run directory, and has an epoch finished?")


def _best_file(run: Path) -> Path:
    """Return the best checkpoint of a run, or raise UserError with the reason why it has none."""
    if not (run / keys.BEST).is_file():
        raise UserError(f"{run}: holds no {keys.BEST}; {_why_missing(run)}")
    return run / keys.BEST


def _best_of(sweep: Path, reports: Path) -> Path:
    """Return the checkpoint of a sweep's best run: by its report if there is a current one, else by val."""
    finished = {run: summary for run in files.find_runs(sweep) if (summary := _summary(run)) is not None}
    if not finished:
        raise UserError(f"{sweep}: no run is finished yet. Name one of its runs to use what it has so far")
    report = reports / sweep.resolve().name / "report.json"
    best, reason = _best_by_report(report, finished), f"as {report} has it"
    if best is None:
        _check_same_data(sweep, finished)
        best = min(finished, key=lambda run: (*_rank(finished[run]), run.name))
        val = finished[best]["best/val_accuracy"]
        reason = f"of {len(finished)} finished runs it has the highest val accuracy, {val:.1%}"
    logger.info(f"the best run of {sweep} is {best.name}: {reason}")
    return _best_file(best)


def _summary(run: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run, or None if the run can't be ranked."""
    try:
        summary = documents.read_json(run / keys.SUMMARY) or {}
    except (OSError, ValueError, TypeError):
        return None
    accuracy = summary.get("best/val_accuracy")
    return summary if isinstance(accuracy, int | float) and math.isfinite(accuracy) else None


def _rank(summary: dict[str, Any]) -> tuple[float, float]:
    """Return the sort key of finished runs, best first: val accuracy, then val loss (as in `analysis`)."""
    loss = summary.get("best/val_loss")
    return -summary["best/val_accuracy"], float(loss) if isinstance(loss, int | float) else math.inf


def _best_by_report(report: Path, finished: dict[Path, dict[str, Any]]) -> Path | None:
    """Return the best run in the sweep's report; None if there is no report, or it is older than a finished run."""
    try:
        name = (documents.read_json(report) or {}).get("best_run")
        newest = max((run / keys.SUMMARY).stat().st_mtime for run in finished)
        is_current = report.stat().st_mtime >= newest
    except (OSError, ValueError, TypeError):
        return None
    return next((run for run in finished if is_current and run.name == name), None)


def _check_same_data(sweep: Path, finished: dict[Path, dict[str, Any]]) -> None:
    """Raise UserError if val accuracies were measured on different images."""
    fingerprints = {files.read_config(run).get("provenance", {}).get("data_fingerprint") for run in finished}
    if len(fingerprints) > 1:
        raise UserError(
            f"{sweep}: its runs used {len(fingerprints)} different image sets, so their val accuracies "
            "do not compare. Name one of its runs"
        )


def _why_missing(run: Path) -> str:
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
    """Return the sweep whose runs changed last."""
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
    more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    return ", ".join(map(str, paths[:MAX_LISTED])) + more


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
        yield Path(value).name  # of a path to a run, the run's name
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)

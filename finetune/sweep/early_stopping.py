"""Hyperband: stop runs early that lag behind, by W&B's own rule, told to the run by a file in its directory.

A schedule is never stopped before its last step has trained for an epoch: what it is for would not have begun. Bands
count the epochs from then on (see best_epoch.py).
"""

from collections.abc import Mapping
from typing import Any

from finetune.rundir import files, keys
from finetune.rundir.best_epoch import add_best_so_far
from finetune.sweep import plan, search
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents
from finetune.system.atomic import write_atomic

Observation = tuple[
    str, Mapping[str, Any], list[dict[str, Any]]
]  # state, summary and history, as the search engine wants them


def observation_of(run: PlannedRun) -> Observation:
    """Return what the search engine is told of a run: state, summary, history.

    The rows say what the rows of a W&B run say, so that both worlds search alike.
    """
    assert run.config.unfreeze is not None, "a planned run's config is resolved"
    state = plan.state_of(run)[0]
    rows = add_best_so_far(files.read_history(run.directory)[0], run.config.unfreeze)
    engine_state = {"finished": "finished", "failed": "failed", "interrupted": "killed"}.get(state, "running")
    return engine_state, documents.read_json_or_empty(run.directory / keys.SUMMARY), rows


def history_has_grown(todo: SweepPlan, run: PlannedRun, seen: dict[str, int]) -> bool:
    """Whether the run's history has grown since the last call, in a sweep that stops early; `seen` is kept up."""
    history = run.directory / keys.HISTORY
    if "early_terminate" not in todo.sweep.spec or not history.exists():
        return False
    size = history.stat().st_size
    has_grown = size > seen.get(run.id, 0)
    seen[run.id] = size
    return has_grown


def stop_if_lagging(todo: SweepPlan, run: PlannedRun) -> None:
    """Tell a running run to stop if hyperband would stop it now and its schedule allows it."""
    assert run.config.unfreeze is not None, "a planned run's config is resolved"
    rows, _ = files.read_history(run.directory)
    if not rows or not run.config.unfreeze[-1][0] < rows[-1]["epoch"] < run.config.epochs:
        return
    trials = [search.ObservedPoint(other.id, other.point, *observation_of(other)) for other in todo.runs]
    if run.id in search.to_stop(todo.sweep.spec, trials):
        write_atomic(run.directory / keys.STOP, f"hyperband, after {rows[-1]['epoch']} epochs\n")

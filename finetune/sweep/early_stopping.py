"""Hyperband by W&B's own rule: runs that lag behind are stopped early, by a file in their directory.

A run is never stopped before the last step of its unfreeze schedule has trained for an epoch: until then it has not
shown what the schedule can do. Hyperband's bands count the epochs from that step on (see best_epoch.py).
"""

from finetune.rundir import files, keys
from finetune.rundir.best_epoch import add_best_so_far
from finetune.sweep import search
from finetune.sweep.plan import PlannedRun, SweepPlan, state_of
from finetune.sweep.search import ObservedPoint
from finetune.system import documents
from finetune.system.atomic import write_atomic


def observations(plan: SweepPlan) -> list[ObservedPoint]:
    """Return the search engine's view of all points so far.

    The rows of a history equal those of a W&B run, so that a search behaves the same here and on a W&B server.
    """
    faulty = [ObservedPoint(f"faulty-{number}", point, "failed") for number, (point, _) in enumerate(plan.faulty)]
    return [*map(_observation, plan.runs), *faulty]


def _observation(run: PlannedRun) -> ObservedPoint:
    assert run.config.unfreeze is not None, "a planned run's config is resolved"
    rows = add_best_so_far(files.read_history(run.directory)[0], run.config.unfreeze)
    state = {"finished": "finished", "failed": "failed", "interrupted": "killed"}.get(state_of(run)[0], "running")
    return ObservedPoint(run.id, run.point, state, documents.read_json_or_empty(run.directory / keys.SUMMARY), rows)


def history_has_grown(plan: SweepPlan, run: PlannedRun, sizes: dict[str, int]) -> bool:
    """Return whether a run's history has grown since the last call, in a sweep with early stopping.

    Args:
        sizes: run id -> size of its history at the last call; updated here.
    """
    history = run.directory / keys.HISTORY
    if "early_terminate" not in plan.sweep.spec or not history.exists():
        return False
    size = history.stat().st_size
    has_grown = size > sizes.get(run.id, 0)
    sizes[run.id] = size
    return has_grown


def stop_if_lagging(plan: SweepPlan, run: PlannedRun) -> None:
    """Ask a running run to stop if hyperband would stop it now and its schedule has reached its last step."""
    assert run.config.unfreeze is not None, "a planned run's config is resolved"
    rows, _ = files.read_history(run.directory)
    if not rows or not run.config.unfreeze[-1][0] < rows[-1]["epoch"] < run.config.epochs:
        return
    if run.id in search.points_to_stop(plan.sweep.spec, observations(plan)):
        write_atomic(run.directory / keys.STOP, f"hyperband, after {rows[-1]['epoch']} epochs\n")

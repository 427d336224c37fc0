"""Racing: further seeds and folds only for the recipe of each strategy that val prefers at the first seed, or fold.

Which rate suits a strategy shows with one seed, mostly; how sure the result is takes more of them, and only for the
recipe that is chosen. So a sweep of 5 strategies, 2 rates and 3 seeds is done after 20 runs instead of 30. The analysis
compares recipes with the most runs alone, so it chooses the same ones. The folds of a cross-validation are raced like
seeds: the recipes are compared on the first fold, by its val pictures, and the test pictures of no fold are looked at.
Where runs train on parts of the pictures (train_share), each part has a contest of its own.
"""

from collections.abc import Callable

from finetune.resolve import recipe
from finetune.rundir import keys
from finetune.sweep import plan
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents

Wants = Callable[[PlannedRun], bool]


def drop_losing_recipes(todo: SweepPlan, wants: Wants) -> list[str]:
    """Take the runs out of the plan that a decided contest has made needless; return a sentence for each contest.

    A contest is decided once no first run of its strategy's recipes is to do or running. What has been started of a
    recipe that lost stays.

    Args:
        wants: whether a run is to do.
    """
    told = []
    for kind, firsts in _contests(todo).items():
        if any(_is_open(run, wants) for run in firsts):
            continue
        winner = _best(firsts)
        needless = [run for run in todo.runs if _contest_key(run) == kind and _will_not_run(run, firsts, winner)]
        if needless:
            todo.runs = [run for run in todo.runs if run not in needless]
            how = f"{winner.id} is ahead on val" if winner is not None else "no first run has finished"
            strategy, share = kind
            where = strategy if share == 1 else f"{strategy} on {share:.0%} of the pictures"
            told.append(f"race: {where}: {how}; {len(needless)} runs of other recipes are left out")
    return told


def must_wait(todo: SweepPlan, run: PlannedRun, wants: Wants) -> bool:
    """Whether a run is a recipe's further seed or fold, and its strategy's contest is not decided, or lost.

    Lost counts too: another process may decide a contest that `narrow` has just found open.
    """
    firsts = _contests(todo)[_contest_key(run)]
    if run in firsts:
        return False
    return any(_is_open(first, wants) for first in firsts) or _will_not_run(run, firsts, _best(firsts))


def expected_runs(todo: SweepPlan, wants: Wants) -> list[PlannedRun]:
    """Return the runs to reckon with: where a contest is not decided, one recipe stands for the one that will win."""
    kept: set[str] = set()
    for kind, firsts in _contests(todo).items():
        ahead = firsts[0] if any(_is_open(first, wants) for first in firsts) else _best(firsts)
        runs = [run for run in todo.runs if _contest_key(run) == kind]
        kept |= {run.id for run in runs if not _will_not_run(run, firsts, ahead)}
    return [run for run in todo.runs if run.id in kept]


def _contest_key(run: PlannedRun) -> tuple[str, float]:
    """Return what the recipes of a contest have in common: the strategy, and the share of the pictures that train."""
    return run.config.strategy, run.config.train_share


def _contests(todo: SweepPlan) -> dict[tuple[str, float], list[PlannedRun]]:
    """Return kind -> the first run of each of its recipes, in the plan's order."""
    firsts: dict[str, PlannedRun] = {}
    for run in todo.runs:
        firsts.setdefault(recipe(run.config), run)
    contests: dict[tuple[str, float], list[PlannedRun]] = {}
    for run in firsts.values():
        contests.setdefault(_contest_key(run), []).append(run)
    return contests


def _will_not_run(run: PlannedRun, firsts: list[PlannedRun], winner: PlannedRun | None) -> bool:
    """Whether a run is a further seed or fold of a recipe other than the winner's, and has not been started."""
    if run in firsts or (winner is not None and recipe(run.config) == recipe(winner.config)):
        return False
    return plan.state_of(run)[0] == "to do"


def _is_open(run: PlannedRun, wants: Wants) -> bool:
    return wants(run) or plan.state_of(run)[0] in ("running", "interrupted")


def _best(firsts: list[PlannedRun]) -> PlannedRun | None:
    """Return the finished run with the highest val accuracy, ties to the lower val loss, as the analysis has it."""
    found = [(documents.read_json_or_empty(run.directory / keys.SUMMARY), run) for run in firsts]
    finished = [(summary["best/val_accuracy"], -summary["best/val_loss"], run) for summary, run in found if summary]
    return max(finished, key=lambda item: item[:2])[2] if finished else None

"""Racing: further seeds and folds only for the recipe of each arm with the best val score on its first run.

One seed usually shows which learning rate suits a strategy; more seeds are needed only to measure the chosen recipe
precisely. A sweep of 5 strategies, 2 rates and 3 seeds is done after 20 runs instead of 30. The analysis compares the
recipes of an arm on the seeds that all of them have, so it chooses the same ones. The folds of a cross-validation are
raced like seeds: recipes are compared on the val images of the first fold, and no test images are looked at.
"""

from dataclasses import dataclass

from finetune.resolve import arm
from finetune.rundir import keys
from finetune.sweep.plan import PlannedRun, SweepPlan, state_of
from finetune.system import documents


@dataclass(frozen=True)
class Contest:
    """The recipes of one arm: they differ in tuned rates only."""

    strategy: str
    train_share: float
    runs: list[PlannedRun]  # of all recipes
    firsts: list[PlannedRun]  # the first run of each recipe, in the plan's order
    is_open: bool  # whether one of `firsts` is pending or running
    winner: PlannedRun | None  # the best finished run of `firsts`, if there is one

    def losing_runs(self, ahead: PlannedRun | None) -> list[PlannedRun]:
        """Return the further runs that need not start if `ahead` wins; a run that was started once is none of them."""
        firsts = {run.id for run in self.firsts}
        further = [run for run in self.runs if run.id not in firsts and (ahead is None or run.recipe != ahead.recipe)]
        return [run for run in further if state_of(run)[0] == "to do"]


def drop_losing_recipes(plan: SweepPlan, retry_failed: bool) -> list[str]:
    """Remove the further runs of losing recipes from the plan; return a log line for each newly decided contest."""
    lines = []
    for contest in contests(plan, retry_failed):
        losing = [] if contest.is_open else contest.losing_runs(contest.winner)
        if losing:
            ids = {run.id for run in losing}
            plan.runs = [run for run in plan.runs if run.id not in ids]
            lines.append(_result_line(contest, len(losing)))
    return lines


def _result_line(contest: Contest, count: int) -> str:
    share = "" if contest.train_share == 1 else f" on {contest.train_share:.0%} of the images"
    result = f"{contest.winner.id} is ahead on val" if contest.winner is not None else "no first run has finished"
    return f"race: {contest.strategy}{share}: {result}; {count} runs of other recipes are left out"


def waiting_runs(plan: SweepPlan, retry_failed: bool) -> set[str]:
    """Return the ids of further runs that must not start now: their contest is undecided, or their recipe has lost.

    Recipes that lost are included because another agent may have decided a contest since `drop_losing_recipes`.
    """
    waiting: set[str] = set()
    for contest in contests(plan, retry_failed):
        firsts = {run.id for run in contest.firsts}
        further = contest.runs if contest.is_open else contest.losing_runs(contest.winner)
        waiting |= {run.id for run in further} - firsts
    return waiting


def expected_runs(plan: SweepPlan, retry_failed: bool) -> list[PlannedRun]:
    """Return the runs that are expected to execute: all, or in a race those of the recipes that win.

    In an undecided contest, the first recipe stands for the one that will win.
    """
    if not plan.race:
        return plan.runs
    losing: set[str] = set()
    for contest in contests(plan, retry_failed):
        ahead = contest.firsts[0] if contest.is_open else contest.winner
        losing |= {run.id for run in contest.losing_runs(ahead)}
    return [run for run in plan.runs if run.id not in losing]


def contests(plan: SweepPlan, retry_failed: bool) -> list[Contest]:
    """Return the contests of a race, as the run directories stand now."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in plan.runs:
        groups.setdefault(arm(run.config), []).append(run)
    return [_contest(runs, retry_failed) for runs in groups.values()]


def _contest(runs: list[PlannedRun], retry_failed: bool) -> Contest:
    by_recipe: dict[str, PlannedRun] = {}
    for run in runs:
        by_recipe.setdefault(run.recipe, run)
    firsts = list(by_recipe.values())
    is_open = any(_may_still_finish(run, retry_failed) for run in firsts)
    first = runs[0].config
    return Contest(first.strategy, first.train_share, runs, firsts, is_open, _best(firsts))


def _may_still_finish(run: PlannedRun, retry_failed: bool) -> bool:
    state = state_of(run)[0]
    return state in ("to do", "interrupted", "running") or (state == "failed" and retry_failed)


def _best(runs: list[PlannedRun]) -> PlannedRun | None:
    """Return the finished run with the highest val accuracy; ties go to the lower val loss, as in the analysis."""
    summaries = [(documents.read_json_or_empty(run.directory / keys.SUMMARY), run) for run in runs]
    finished = [(summary["best/val_accuracy"], -summary["best/val_loss"], run) for summary, run in summaries if summary]
    return max(finished, key=lambda item: item[:2])[2] if finished else None

"""What an agent shows before and after its runs: the plan as a table, the state of the sweep, the summary."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from finetune.rundir import keys
from finetune.rundir.failures import CAUSES
from finetune.sweep import plan, racing
from finetune.sweep.plan import PlannedRun, SweepPlan
from finetune.system import documents
from finetune.system.output import SafeConsole

# Markup would take `[...]` in paths for colours; a notebook gets the lines of a log.
console = SafeConsole(highlight=False, markup=False, soft_wrap=True, force_jupyter=False)


class FailedRun(NamedTuple):
    """A run that failed in this agent's hands, and why."""

    run: PlannedRun
    reason: str


def varying(todo: SweepPlan) -> list[str]:
    """Return the fields, other than the strategy, that differ between the runs of a sweep as it gives them."""
    fields = [name for name in todo.sweep.spec["parameters"] if name != "strategy"]
    return [name for name in fields if len({str(getattr(run.given, name)) for run in todo.runs}) > 1]


def text(value: Any) -> str:
    """Return a config's value, short enough for a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(text(item) for item in value) + "]"
    return "" if value is None else str(value)


def duration(seconds: float) -> str:
    """Return such as `40 s`, `4.5 min`, `41 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.{1 if seconds < 570 else 0}f} min"
    return f"{seconds / 3600:.1f} h"


def label(run: PlannedRun, fields: Sequence[str]) -> str:
    """Return what tells a run from its neighbours, such as `head-ab12cd34 lr 0.003 seed 1`."""
    given = [f"{name} {text(getattr(run.config, name))}" for name in fields if getattr(run.config, name) is not None]
    return " ".join([run.id, *given])


def show_plan(todo: SweepPlan) -> None:
    """Print the runs of a sweep, the points that collapsed and why, and the counts."""
    fields = varying(todo)
    table = Table("run", "strategy", *fields, "state", title=f"{todo.sweep.source} -> {todo.sweep.folder}")
    for run in todo.runs:
        table.add_row(
            run.id, run.config.strategy, *(text(getattr(run.config, name)) for name in fields), plan.state_of(run)[0]
        )
    if todo.runs:
        console.print(table)
    reasons = Counter(reason for _, reason in todo.collapsed)
    for reason, number in reasons.items():
        merged = [name for name, why in todo.collapsed if why == reason]
        named = ", ".join(dict.fromkeys(merged[:3])) + (", ..." if len(set(merged)) > 3 else "")
        console.print(f"{_count(number, 'point')} collapsed: {reason} ({named})")
    console.print(_counts(todo))


def show_start(todo: SweepPlan, retry_failed: bool) -> None:
    """Print what there is and what is going to be done."""
    console.print(f"{todo.sweep.folder}: {_counts(todo)}")
    if not retry_failed:
        for run in todo.runs:
            state, reason = plan.state_of(run)
            if state == "failed":
                console.print(f"failed before, not started again: {_failure(run, reason)}")


def show_end(
    todo: SweepPlan, broken: Mapping[str, str], stopped: bool = False, gave_up: Sequence[FailedRun] = ()
) -> bool:
    """Print the summary and the command to type next; return whether a run failed.

    Args:
        broken: ids of the runs that failed or were killed in this agent's hands -> cause.
        gave_up: the failures in a row after which it started no more, though there was more to do.
    """
    states = plan.states(todo)
    failed = [run for run in todo.runs if plan.state_of(run)[0] == "failed" or run.id in broken]
    left = len(todo.runs) - states["finished"] - states["failed"] + max(todo.cap - todo.points, 0)
    parts = [f"{states['finished']} finished", f"{len(failed)} failed", f"{left} left"]
    if states["running"]:
        parts.append(f"{states['running']} of them run by another agent")
    verb = "stopped" if stopped else f"gave up after {len(gave_up)} failures in a row" if gave_up else "done"
    console.print(f"{verb}: {', '.join(parts)}")
    show_causes([(run.id, broken.get(run.id) or _cause(run)) for run in failed])
    if gave_up:
        console.print(f"the first in a row: {_failure(gave_up[0].run, gave_up[0].reason)}")
        console.print("the runs that are left were not started: mend the cause first")
    folder = shlex.quote(str(todo.sweep.folder))
    again = f"python agent.py {folder}"
    if states["failed"]:
        console.print(f"failed runs are started again by: {again} --retry-failed")
    if left:
        console.print(f"go on with: {again}")
    if states["finished"]:
        console.print(f"compare the runs with: make analysis SWEEP={folder}")
    return bool(failed)


def show_causes(failed: Sequence[tuple[str, str]]) -> None:
    """Print the ids of failed runs by cause, the most frequent first, and what to do about it."""
    for cause, number in Counter(cause for _, cause in failed if cause in CAUSES).most_common():
        names = [name for name, its_cause in failed if its_cause == cause]
        named = ", ".join(names[:3]) + (", ..." if number > 3 else "")
        console.print(f"  {cause}, {_count(number, 'run')} ({named}): {CAUSES[cause]}")


def _cause(run: PlannedRun) -> str:
    """Return the cause that was noted when the run failed, or an empty string."""
    return str(documents.read_json_or_empty(run.directory / keys.STATE).get("cause", ""))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _counts(todo: SweepPlan) -> str:
    """Return such as `20 points, 18 runs: 12 finished, 6 to do`."""
    states = plan.states(todo)
    order = ("finished", "failed", "interrupted", "running", "to do")
    parts = [f"{states[state]} {state}" for state in order if states[state]]
    if todo.cap > todo.points:
        parts.append(f"{todo.cap - todo.points} still to be chosen from the results")
    points = f"{_count(todo.points, 'point')}, " if todo.collapsed else ""
    needed = racing.expected_runs(todo, lambda run: plan.is_to_do(run, False)) if todo.race else todo.runs
    raced = f"; {len(needed)} needed in this race" if len(needed) < len(todo.runs) else ""
    return f"{points}{_count(len(todo.runs), 'run')}" + (f": {', '.join(parts)}" if parts else "") + raced


def _failure(run: PlannedRun, reason: str) -> str:
    return f"{run.id}: {reason}; log: {run.directory / keys.LOG}"

"""Tables and lines that an agent prints before and after its runs."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from finetune.rundir import keys
from finetune.rundir.failures import CAUSES
from finetune.sweep.folder_checks import describe_unused_runs
from finetune.sweep.plan import PlannedRun, SweepPlan, count_states, state_of
from finetune.sweep.racing import expected_runs
from finetune.system import documents
from finetune.system.output import SafeConsole

# Without markup, as it would take `[...]` in paths for colours; a notebook gets plain lines.
console = SafeConsole(highlight=False, markup=False, soft_wrap=True, force_jupyter=False)

MAX_NAMES = 3  # of runs that are named in one line


class FailedRun(NamedTuple):
    """A run that failed while this agent ran it, and why."""

    run: PlannedRun
    reason: str


def varying(plan: SweepPlan) -> list[str]:
    """Return the fields, other than the strategy, that differ between the runs of a sweep."""
    fields = [name for name in plan.sweep.spec["parameters"] if name != "strategy"]
    return [name for name in fields if len({str(getattr(run.unresolved, name)) for run in plan.runs}) > 1]


def format_value(value: Any) -> str:
    """Return a config's value, short enough for a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(item) for item in value) + "]"
    return "" if value is None else str(value)


def duration(seconds: float) -> str:
    """Return such as `40 s`, `4.5 min`, `41 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.{1 if seconds < 570 else 0}f} min"
    return f"{seconds / 3600:.1f} h"


def count_noun(number: int, noun: str) -> str:
    """Return such as `1 run` or `3 runs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def label(run: PlannedRun, fields: Sequence[str]) -> str:
    """Return a run's name with the fields that vary, such as `head-ab12cd34 lr 0.003 seed 1`."""
    values = [(name, getattr(run.config, name)) for name in fields]
    return " ".join([run.id, *(f"{name} {format_value(value)}" for name, value in values if value is not None)])


def show_plan(plan: SweepPlan) -> None:
    """Print the runs of a sweep, the points that collapsed and why, and the counts."""
    fields = varying(plan)
    table = Table("run", "strategy", *fields, "state", title=f"{plan.sweep.source} -> {plan.sweep.folder}")
    for run in plan.runs:
        values = (format_value(getattr(run.config, name)) for name in fields)
        table.add_row(run.id, run.config.strategy, *values, state_of(run)[0])
    if plan.runs:
        console.print(table)
    for reason, number in Counter(reason for _, reason in plan.collapsed).items():
        merged = dict.fromkeys(name for name, its_reason in plan.collapsed if its_reason == reason)
        console.print(f"{count_noun(number, 'point')} collapsed: {reason} ({_name_some(merged)})")
    for fault, number in Counter(fault for _, fault in plan.faulty).items():
        console.print(f"{count_noun(number, 'point')} proposed by the search, and no valid config: {fault}")
    _print_unused(plan)
    console.print(_counts(plan))


def show_start(plan: SweepPlan, retry_failed: bool) -> None:
    """Print the state of a sweep, and which runs failed before and are not retried."""
    console.print(f"{plan.sweep.folder}: {_counts(plan)}")
    _print_unused(plan)
    if not retry_failed:
        for run in plan.runs:
            state, reason = state_of(run)
            if state == "failed":
                console.print(f"failed before, not started again: {_failure(FailedRun(run, reason))}")


def _print_unused(plan: SweepPlan) -> None:
    if line := describe_unused_runs(plan):
        console.print(line)


def show_end(
    plan: SweepPlan, causes: Mapping[str, str], stopped: bool = False, gave_up: Sequence[FailedRun] = ()
) -> bool:
    """Print the summary and the commands to type next; return whether a run failed.

    Args:
        causes: id -> cause, of the runs that failed or were killed while this agent ran them.
        stopped: whether a signal ended the agent.
        gave_up: the failures in a row after which the agent started no more runs, though some were left.
    """
    states = count_states(plan)
    failed = [run for run in plan.runs if state_of(run)[0] == "failed" or run.id in causes]
    left = len(plan.runs) - states["finished"] - states["failed"] + plan.points_left
    counts = [f"{states['finished']} finished", f"{len(failed)} failed", f"{left} left"]
    if states["running"]:
        counts.append(f"{states['running']} of them run by another agent")
    verb = "stopped" if stopped else f"gave up after {len(gave_up)} failures in a row" if gave_up else "done"
    console.print(f"{verb}: {', '.join(counts)}")
    show_causes([(run.id, causes.get(run.id) or _recorded_cause(run)) for run in failed])
    if gave_up:
        console.print(f"the first in a row: {_failure(gave_up[0])}")
        console.print("the runs that are left were not started: fix the cause first")
    folder = shlex.quote(str(plan.sweep.folder))
    if states["failed"]:
        console.print(f"failed runs are started again by: python agent.py {folder} --retry-failed")
    if left:
        console.print(f"go on with: python agent.py {folder}")
    if states["finished"]:
        console.print(f"compare the runs with: make analysis SWEEP={folder}")
    return bool(failed)


def show_causes(failed: Sequence[tuple[str, str]]) -> None:
    """Print failed runs, (id, cause), by cause, the most frequent first, with advice for each."""
    for cause, number in Counter(cause for _, cause in failed if cause in CAUSES).most_common():
        names = [name for name, its_cause in failed if its_cause == cause]
        console.print(f"  {cause}, {count_noun(number, 'run')} ({_name_some(names)}): {CAUSES[cause]}")


def _recorded_cause(run: PlannedRun) -> str:
    """Return the cause that the run's directory records, or an empty string."""
    return str(documents.read_json_or_empty(run.directory / keys.STATE).get("cause", ""))


def _name_some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")


def _counts(plan: SweepPlan) -> str:
    """Return such as `20 points, 18 runs: 12 finished, 6 to do`."""
    states = count_states(plan)
    order = ("finished", "failed", "interrupted", "running", "to do")
    counts = [f"{states[state]} {state}" for state in order if states[state]]
    if plan.points_left:
        counts.append(f"{plan.points_left} still to be chosen from the results")
    points = f"{count_noun(plan.points, 'point')}, " if plan.collapsed else ""
    needed = len(expected_runs(plan, retry_failed=False))
    race = f"; {needed} needed in this race" if needed < len(plan.runs) else ""
    return f"{points}{count_noun(len(plan.runs), 'run')}" + (f": {', '.join(counts)}" if counts else "") + race


def _failure(failed: FailedRun) -> str:
    return f"{failed.run.id}: {failed.reason}; log: {failed.run.directory / keys.LOG}"

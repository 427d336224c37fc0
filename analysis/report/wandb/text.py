"""The text of a W&B report: its question, how it was measured, how to reproduce it. Plain text, no markup."""

from typing import Any

import pandas as pd

from analysis.report.methods import baseline_sentence, comparison_notes, data_sentence
from analysis.report.shell import recorded_command, shell_command
from analysis.sources.test_sets import REPLICATES
from analysis.tables.analysis import Analysis
from analysis.tables.metadata import origin_facts, sweep_spec
from analysis.tables.recipes import join_replicate_labels

USUAL_FIELDS = ("strategy", "lr", "seed")  # varied by a sweep without a sweep file


def swept_fields(sweep_text: str | None, runs: pd.DataFrame) -> dict[str, bool]:
    """Return the fields that the sweep varies -> whether their axis should be logarithmic.

    Args:
        runs: one row per run; its columns are the config's fields.
    """
    parameters = sweep_spec(sweep_text).get("parameters")
    names = (
        [str(name) for name, parameter in parameters.items() if _varies(parameter)]
        if isinstance(parameters, dict)
        else USUAL_FIELDS
    )
    varied = [name for name in names if name in runs and runs[name].map(str).nunique() > 1]  # str: lists have no hash
    return {name: _is_logarithmic(name, runs[name]) for name in varied}


def _varies(parameter: Any) -> bool:
    """Whether a parameter of a sweep file has more than one value: several `values`, or a distribution."""
    if not isinstance(parameter, dict) or "value" in parameter:
        return False
    return len(parameter["values"]) > 1 if isinstance(parameter.get("values"), list) else True


def _is_logarithmic(name: str, values: "pd.Series[Any]") -> bool:
    """Whether the values are numbers above 0 whose largest is at least three times the smallest."""
    numbers = pd.to_numeric(values, errors="coerce") if values.dtype != bool else pd.Series([float("nan")])
    return name not in REPLICATES and bool(
        numbers.notna().all() and numbers.min() > 0 and numbers.max() >= 3 * numbers.min()
    )


def methods_text(analysis: Analysis) -> list[str]:
    """Return how the numbers were measured, a sentence or two each."""
    data, sweep = analysis.data, analysis.sweep
    left_out = f", {len(sweep.left_out)} left out" if len(sweep.left_out) else ""
    versions = "; ".join(f"{name} {', '.join(values)}" for name, values in origin_facts(sweep).items())
    return [
        f"Data: {data['name']}. {data_sentence(data)}".rstrip(),
        *([f"Splits: {'; '.join(data['splits_from'])}."] if data["splits_from"] else []),
        *filter(None, [baseline_sentence(data)]),
        *comparison_notes(analysis.replicate),
        f"Means are over {join_replicate_labels(analysis.comparison.arms['over'])}.",
        f"Runs: {len(sweep.finished)} finished{left_out}.",
        *([f"Made with {versions}."] if versions else []),
    ]


def commands_text(analysis: Analysis, sweep: str) -> str:
    """Return the commands that reproduce runs, comparison and report.

    Args:
        sweep: entity/project/id.
    """
    best = recorded_command(analysis.best.get("provenance/command"))
    steps = [
        ("the runs, from the sweep file below", "make agents SWEEP=sweeps/again.yaml" if analysis.sweep.text else None),
        ("the comparison, from the runs on W&B", shell_command("make", "analysis", f"SWEEP={sweep}")),
        ("this report, updated", shell_command("make", "report", f"SWEEP={sweep}")),
        ("the run whose predictions are shown", best),
    ]
    return "\n".join(f"# {purpose}\n{command}" for purpose, command in steps if command)

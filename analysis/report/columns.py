"""Numbers and tables as people read them: per cent, minutes, millions, and a dash where there is nothing to tell."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.formatting import (
    NONE,
    format_duration,
    format_energy,
    format_gflops,
    format_interval,
    format_memory,
    format_p,
    format_points,
    format_quantity,
    format_target,
    percent,
    train_time_text,
)
from analysis.stats.tests import ALPHA
from analysis.tables.replicates import replicate_kind

if TYPE_CHECKING:
    pass
LONG_NAME = 24  # signs of a class's name that are shown in a table


def _spread(row: "pd.Series[Any]") -> str:
    """Return the deviation over seeds or folds in points; one run has none, its interval is all that can be said."""
    return f"± {row['test_accuracy_sd'] * 100:.1f}" if row["n"] > 1 else NONE


def _to_target(row: "pd.Series[Any]") -> str:
    """Return the epochs to the target, and how many runs got there where not all did."""
    reaching, runs = row["seeds_reaching_target"], row["n"]
    if not reaching:
        return "never"
    among = "" if reaching == runs else f"{reaching} of {runs} {replicate_kind([row['over']])}s"
    median = row["epochs_to_target_median"]
    if pd.isna(median):
        return among
    return f"{median:g} ({among})" if among else f"{median:g}"


def _frozen(row: "pd.Series[Any]") -> str:
    """Return the frozen share counted in the three ways that people mean."""
    return " / ".join(percent(row[f"frozen_{what}_share"], 0) for what in ("block", "parameter", "flop"))


def _repeats(row: "pd.Series[Any]") -> str:
    """Return "3" for 3 seeds, and in words whatever else a recipe was repeated over."""
    return f"{row['n']}" if replicate_kind([row["over"]]) == "seed" else str(row["over"])


def _lowest_recall(row: "pd.Series[Any]") -> str:
    """Return the lowest recall of a class, and which class that is."""
    if pd.isna(row["lowest_recall"]):
        return NONE
    name = str(row["lowest_recall_class"])
    return f"{percent(row['lowest_recall'])} ({name if len(name) <= LONG_NAME else name[: LONG_NAME - 1] + '…'})"


@dataclass(frozen=True)
class Column:
    """One column as people read it.

    Attributes:
        heading: what stands above it.
        cell: row of the table -> text.
        number: whether the texts are numbers.
        rank: how soon a narrow terminal drops it.
        sort: the column of the table by which a reader sorts it, where the text will not do.
    """

    heading: str
    cell: "Callable[[pd.Series[Any]], str]"
    number: bool = True
    rank: int = 9
    sort: str = ""


def columns(target: float) -> list[Column]:
    """Return the columns that people read."""
    to_target = f"Epochs to {format_target(target)} val"
    return [
        Column("Strategy", lambda row: str(row["strategy"]), number=False, rank=0),
        Column("Recipe", lambda row: str(row["recipe"]), number=False, rank=1),
        Column("Test", lambda row: percent(row["test_accuracy_mean"]), rank=0, sort="test_accuracy_mean"),
        Column("Spread", _spread, rank=4, sort="test_accuracy_sd"),
        Column(
            "95% interval",
            lambda row: format_interval(row["test_accuracy_low"], row["test_accuracy_high"]),
            rank=1,
            sort="test_accuracy_low",
        ),
        Column("Seeds", _repeats, rank=3, sort="n"),
        Column("Val", lambda row: percent(row["val_accuracy_mean"]), rank=3, sort="val_accuracy_mean"),
        Column("Macro-F1", lambda row: percent(row["macro_f1_mean"]), rank=6, sort="macro_f1_mean"),
        Column("Lowest recall", _lowest_recall, rank=8, sort="lowest_recall"),
        Column("Runs", lambda row: f"{row['runs']}", sort="runs"),
        Column("Train time", train_time_text, rank=2, sort="train_seconds_mean"),
        Column("Time saved", lambda row: percent(row["time_saved"], 0), rank=7, sort="time_saved"),
        Column("Compute saved", lambda row: percent(row["compute_saved"], 0), rank=2, sort="compute_saved"),
        Column(to_target, _to_target, rank=5, sort="epochs_to_target_median"),
        Column(
            "Trainable parameters",
            lambda row: format_quantity(row["trainable_parameters"]),
            sort="trainable_parameters",
        ),
    ]


def cost_columns() -> list[Column]:
    """Return the columns of the table of costs."""
    return [
        Column("Strategy", lambda row: str(row["strategy"]), number=False),
        Column("Whole run", lambda row: format_duration(row["wall_seconds_mean"]), sort="wall_seconds_mean"),
        Column("Training", train_time_text, sort="train_seconds_mean"),
        Column("Saved, measured", _time_saved, sort="time_saved"),
        Column("Pictures/s", lambda row: format_quantity(row["images_per_second_mean"]), sort="images_per_second_mean"),
        Column("Peak memory", lambda row: format_memory(row["peak_memory_mb"]), sort="peak_memory_mb"),
        Column("Energy", lambda row: format_energy(row["energy_joules_mean"]), sort="energy_joules_mean"),
        Column("Forward, a picture", lambda row: format_gflops(row["forward_gflops"]), sort="forward_gflops"),
        Column("Backward, a picture", lambda row: format_gflops(row["backward_gflops"]), sort="backward_gflops"),
        Column("A run, FLOPs", lambda row: format_gflops(row["train_gflops_mean"]), sort="train_gflops_mean"),
        Column("Saved, FLOPs", lambda row: percent(row["compute_saved"], 0), sort="compute_saved"),
        Column(
            "Saved, FLOPs with cache",
            lambda row: percent(row["compute_saved_with_cache"], 0),
            sort="compute_saved_with_cache",
        ),
        Column("Frozen: blocks / parameters / FLOPs", _frozen, sort="frozen_flop_share"),
        Column(
            "Trainable parameters",
            lambda row: format_quantity(row["trainable_parameters"]),
            sort="trainable_parameters",
        ),
    ]


def _significance_cell(row: "pd.Series[Any]") -> str:
    return "too few seeds" if pd.isna(row["p_holm"]) else "yes" if row["p_holm"] < ALPHA else "no"


def pair_columns() -> list[Column]:
    """Return the columns of the table of pairs."""
    return [
        Column("Strategies", lambda row: f"{row['strategy']} – {row['other']}", number=False),
        Column("Difference", lambda row: f"{row['difference'] * 100:+.1f} points", sort="difference"),
        Column(
            "95% interval",
            lambda row: format_points(row["difference_low"], row["difference_high"]),
            sort="difference_low",
        ),
        Column("p (Holm)", lambda row: format_p(row["p_holm"]).removeprefix("= "), sort="p_holm"),
        Column("Distinguishable", _significance_cell, number=False),
        Column(
            "Probability of improvement",
            lambda row: percent(row["probability_of_improvement"], 0),
            sort="probability_of_improvement",
        ),
        Column(
            "Only one right",
            lambda row: NONE if pd.isna(row["only_one"]) else f"{row['only_one']:.0f} : {row['only_other']:.0f}",
        ),
        Column(
            "McNemar p (Holm)", lambda row: format_p(row["mcnemar_p_holm"]).removeprefix("= "), sort="mcnemar_p_holm"
        ),
    ]


def _time_saved(row: "pd.Series[Any]") -> str:
    """Return the share of time saved, and the range of single runs."""
    if pd.isna(row["time_saved"]):
        return NONE
    low, high = row["time_saved_min"], row["time_saved_max"]
    among = f" ({low * 100:.0f} to {high * 100:.0f}%)" if high - low > 0.005 else ""
    return percent(row["time_saved"], 0) + among


def columns_that_fit(table: pd.DataFrame, target: float, width: int) -> list[Column]:
    """Return the columns for which a terminal of `width` characters has room, the dispensable ones left out first."""
    shown = columns(target)
    while len(shown) > 1:
        texts = zip(*cells(table, shown), strict=True)
        needs = [
            max(*map(len, texts_of_one), *map(len, column.heading.split()))
            for column, texts_of_one in zip(shown, texts, strict=True)
        ]
        if sum(needs) + 3 * len(needs) + 1 <= width:  # a border and two spaces a column
            break
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def cells(table: pd.DataFrame, shown: list[Column]) -> list[list[str]]:
    """Return the table as text, (rows, columns)."""
    return [[column.cell(row) for column in shown] for _, row in table.iterrows()]

"""The columns of the tables that people read: headings, and cells as text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.formatting import (
    NONE,
    accuracy_interval,
    format_duration,
    format_energy,
    format_gflops,
    format_memory,
    format_p,
    format_points,
    format_quantity,
    format_target,
    percent,
    train_time_text,
)
from analysis.stats.tests import ALPHA
from analysis.tables.recipes import replicate_kind

MAX_NAME = 24  # characters of a class's name in a table
DISPENSABLE = 9  # rank of the columns that a narrow terminal drops first


@dataclass(frozen=True)
class Column:
    """A column of text.

    Attributes:
        cell: row of the table -> text.
        number: whether the texts are numbers, which are aligned to the right.
        rank: a terminal that is too narrow drops the columns of the highest rank first.
        sort: the column of the table that rows are sorted by; "" to sort by the text.
    """

    heading: str
    cell: "Callable[[pd.Series[Any]], str]"
    number: bool = True
    rank: int = DISPENSABLE
    sort: str = ""


def comparison_columns() -> list[Column]:
    """Return the columns of the comparison that are always shown."""
    return [
        Column("Arm", lambda row: str(row["arm"]), number=False, rank=0),
        Column("Recipe", lambda row: str(row["recipe"]), number=False, rank=1),
        Column("Test", lambda row: percent(row["test_accuracy_mean"]), rank=0, sort="test_accuracy_mean"),
        Column("95% interval", accuracy_interval, rank=3, sort="test_accuracy_low"),
        Column("Difference", _difference, rank=1, sort="difference"),
        Column("Val", lambda row: percent(row["val_accuracy_mean"]), rank=4, sort="val_accuracy_mean"),
        Column("Train time", train_time_text, rank=2, sort="train_seconds_mean"),
        Column("Compute saved", lambda row: percent(row["compute_saved"], 0), rank=5, sort="compute_saved"),
    ]


def detail_columns(target: float) -> list[Column]:
    """Return the columns of the comparison that are shown on request.

    Args:
        target: val accuracy that one of the columns counts epochs to.
    """
    return [
        comparison_columns()[0],
        Column("Seeds", _replicates, sort="n"),
        Column("Spread", _spread, sort="test_accuracy_sd"),
        Column("Macro-F1", lambda row: percent(row["macro_f1_mean"]), sort="macro_f1_mean"),
        Column("Worst class recall", _lowest_recall, sort="lowest_recall"),
        Column("Recipes tried", lambda row: f"{row['recipes']}", sort="recipes"),
        Column("Runs (all recipes)", lambda row: f"{row['runs']}", sort="runs"),
        Column("Time saved", lambda row: percent(row["time_saved"], 0), sort="time_saved"),
        Column(f"Epochs to {format_target(target)} val", _to_target, sort="epochs_to_target_median"),
        Column("Parameters", lambda row: format_quantity(row["total_parameters"]), sort="total_parameters"),
        Column("License of the weights", lambda row: str(row["weights_license"] or NONE), number=False),
    ]


def cost_columns() -> list[Column]:
    """Return the columns of the costs."""
    return [
        comparison_columns()[0],
        Column("Complete run", lambda row: format_duration(row["wall_seconds_mean"]), sort="wall_seconds_mean"),
        Column("Training", train_time_text, sort="train_seconds_mean"),
        Column("Saved, measured", _time_saved, sort="time_saved"),
        Column("Images/s", lambda row: format_quantity(row["images_per_second_mean"]), sort="images_per_second_mean"),
        Column("Peak memory", lambda row: format_memory(row["peak_memory_mb"]), sort="peak_memory_mb"),
        Column("Energy", lambda row: format_energy(row["energy_joules_mean"]), sort="energy_joules_mean"),
        Column("Forward, per image", lambda row: format_gflops(row["forward_gflops"]), sort="forward_gflops"),
        Column("Backward, per image", lambda row: format_gflops(row["backward_gflops"]), sort="backward_gflops"),
        Column("FLOPs per run", lambda row: format_gflops(row["train_gflops_mean"]), sort="train_gflops_mean"),
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


def pair_columns() -> list[Column]:
    """Return the columns of the pairwise comparisons."""
    return [
        Column("Arms (A – B)", lambda row: f"{row['strategy']} – {row['other']}", number=False),
        Column("Difference", lambda row: f"{row['difference'] * 100:+.1f} points", sort="difference"),
        Column(
            "95% interval",
            lambda row: format_points(row["difference_low"], row["difference_high"]),
            sort="difference_low",
        ),
        Column("p (Holm)", lambda row: _p_cell(row["p_holm"]), sort="p_holm"),
        Column(
            "Probability of improvement",
            lambda row: percent(row["probability_of_improvement"], 0),
            sort="probability_of_improvement",
        ),
    ]


def network_columns() -> list[Column]:
    """Return the columns of the comparison of single networks, the best run by val of each arm."""
    return [
        Column("Best runs of (A – B)", lambda row: f"{row['strategy']} – {row['other']}", number=False),
        Column(
            "Images only A / only B got right",
            lambda row: NONE if pd.isna(row["only_one"]) else f"{row['only_one']:.0f} : {row['only_other']:.0f}",
        ),
        Column("McNemar p", lambda row: _p_cell(row["mcnemar_p"]), sort="mcnemar_p"),
    ]


def columns_that_fit(table: pd.DataFrame, width: int) -> list[Column]:
    """Return the columns of the comparison that fit into `width` characters; the most dispensable are left out."""
    shown = comparison_columns()
    while len(shown) > 1:
        texts = zip(*cells(table, shown), strict=True)
        widths = [
            max(*map(len, column_texts), *map(len, column.heading.split()))
            for column, column_texts in zip(shown, texts, strict=True)
        ]
        if sum(widths) + 3 * len(widths) + 1 <= width:  # a border and two spaces per column
            break
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def cells(table: pd.DataFrame, shown: list[Column]) -> list[list[str]]:
    """Return the cells as text, (rows, columns)."""
    return [[column.cell(row) for column in shown] for _, row in table.iterrows()]


def _spread(row: "pd.Series[Any]") -> str:
    """Return the standard deviation over runs in points; one run has none."""
    return f"± {row['test_accuracy_sd'] * 100:.1f}" if row["n"] > 1 else NONE


def _to_target(row: "pd.Series[Any]") -> str:
    """Return the median epochs to the target; in brackets how many runs reached it, if not all did."""
    reaching, runs = row["seeds_reaching_target"], row["n"]
    if not reaching:
        return "never"
    share = "" if reaching == runs else f"{reaching} of {runs} {replicate_kind([row['over']])}s"
    median = row["epochs_to_target_median"]
    if pd.isna(median):
        return share
    return f"{median:g} ({share})" if share else f"{median:g}"


def _frozen(row: "pd.Series[Any]") -> str:
    """Return the frozen share of blocks, parameters and FLOPs."""
    return " / ".join(percent(row[f"frozen_{unit}_share"], 0) for unit in ("block", "parameter", "flop"))


def _replicates(row: "pd.Series[Any]") -> str:
    """Return "3" for 3 seeds, and "3 folds" or the like for other replicates."""
    return f"{row['n']}" if replicate_kind([row["over"]]) == "seed" else str(row["over"])


def _lowest_recall(row: "pd.Series[Any]") -> str:
    """Return the lowest recall of a class, and the class."""
    if pd.isna(row["lowest_recall"]):
        return NONE
    name = str(row["lowest_recall_class"])
    return f"{percent(row['lowest_recall'])} ({name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + '…'})"


def _time_saved(row: "pd.Series[Any]") -> str:
    """Return the share of time saved, and the range of single runs if they differ."""
    if pd.isna(row["time_saved"]):
        return NONE
    low, high = row["time_saved_min"], row["time_saved_max"]
    span = f" ({low * 100:.0f} to {high * 100:.0f}%)" if high - low > 0.005 else ""
    return percent(row["time_saved"], 0) + span


def _difference(row: "pd.Series[Any]") -> str:
    """Return the difference to the candidate with its interval, starred where it is significant."""
    if pd.isna(row["difference"]):
        return "highest val"
    interval = format_points(row["difference_low"], row["difference_high"]).removesuffix(" points")
    star = "*" if row["difference_p"] < ALPHA else ""
    return f"{row['difference'] * 100:+.1f}{star}" + ("" if interval == NONE else f" ({interval})")


def _p_cell(p: float) -> str:
    return NONE if pd.isna(p) else format_p(p).removeprefix("= ")

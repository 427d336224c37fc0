"""Numbers and tables as people read them: per cent, minutes, millions, and a dash where there is nothing to tell."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.repeats import unit
from finetune.record import write_atomic

NONE = "–"
LONG_NAME = 24  # signs of a class's name that are shown in a table
MENTIONED = 0.05  # filling caches is told apart where it takes such a share of what the run took otherwise


def percent(share: float, digits: int = 1) -> str:
    """Return 0.871 as "87.1%"."""
    return NONE if pd.isna(share) else f"{share:.{digits}%}"


def interval(low: float, high: float) -> str:
    """Return an interval of accuracies as "83.1–90.2%"."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{low * 100:.1f}–{high * 100:.1f}%"


def points(low: float, high: float) -> str:
    """Return an interval of differences of accuracies as "-1.2 to 3.4 points"."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{low * 100:.1f} to {high * 100:.1f} points"


def p_text(p: float) -> str:
    """Return a p-value as "= 0.032" or "< 0.001"."""
    return "not known" if pd.isna(p) else "< 0.001" if p < 0.001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: "42 s", "12.5 min", "3.1 h"."""
    if math.isnan(seconds):
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def quantity(number: float) -> str:
    """Return 20190000 as "20.2 M"."""
    if math.isnan(number):
        return NONE
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{sign}"
    return f"{number:.0f}"


def _spread(row: "pd.Series[Any]") -> str:
    """Return the deviation over seeds or folds in points; one run has none, its interval is all that can be said."""
    return f"± {row['test_accuracy_sd'] * 100:.1f}" if row["n"] > 1 else NONE


def _to_target(row: "pd.Series[Any]") -> str:
    """Return the epochs to the target, and how many runs got there where not all did."""
    reaching, runs = row["seeds_reaching_target"], row["n"]
    if not reaching:
        return "never"
    among = "" if reaching == runs else f"{reaching} of {runs} {unit([row['over']])}s"
    median = row["epochs_to_target_median"]
    if pd.isna(median):
        return among
    return f"{median:g} ({among})" if among else f"{median:g}"


def _frozen(row: "pd.Series[Any]") -> str:
    """Return the frozen share counted in the three ways that people mean."""
    return " / ".join(percent(row[f"frozen_{what}_share"], 0) for what in ("block", "parameter", "flop"))


def spent(row: "pd.Series[Any]") -> str:
    """Return a run's training time, filling caches apart: the first run to need them pays that for all others."""
    own, shared = row["train_seconds_mean"] - row["cache_seconds_mean"], row["cache_seconds_mean"]
    return duration(own) + (f" + {duration(shared)} cache" if shared >= MENTIONED * own else "")


def _repeats(row: "pd.Series[Any]") -> str:
    """Return "3" for 3 seeds, and in words whatever else a recipe was repeated over."""
    return f"{row['n']}" if unit([row["over"]]) == "seed" else str(row["over"])


def _lowest_recall(row: "pd.Series[Any]") -> str:
    """Return the lowest recall of a class, and which class that is."""
    if pd.isna(row["lowest_recall"]):
        return NONE
    name = str(row["lowest_recall_class"])
    return f"{percent(row['lowest_recall'])} ({name if len(name) <= LONG_NAME else name[: LONG_NAME - 1] + '…'})"


@dataclass(frozen=True)
class Column:
    """One column as people read it: heading, cells, whether they are numbers, how soon a narrow terminal drops it."""

    heading: str
    cell: "Callable[[pd.Series[Any]], str]"
    number: bool = True
    rank: int = 9


def columns(target: float) -> list[Column]:
    """Return the columns that people read."""
    return [
        Column("Strategy", lambda row: str(row["strategy"]), number=False, rank=0),
        Column("Recipe", lambda row: str(row["recipe"]), number=False, rank=1),
        Column("Test", lambda row: percent(row["test_accuracy_mean"]), rank=0),
        Column("Spread", _spread, rank=4),
        Column("95% interval", lambda row: interval(row["test_accuracy_low"], row["test_accuracy_high"]), rank=1),
        Column("Seeds", _repeats, rank=3),
        Column("Val", lambda row: percent(row["val_accuracy_mean"]), rank=3),
        Column("Macro-F1", lambda row: percent(row["macro_f1_mean"]), rank=6),
        Column("Lowest recall", _lowest_recall, rank=8),
        Column("Runs", lambda row: f"{row['runs']}"),
        Column("Train time", spent, rank=2),
        Column("Time saved", lambda row: percent(row["time_saved"], 0), rank=7),
        Column("Compute saved", lambda row: percent(row["compute_saved"], 0), rank=2),
        Column(
            f"Epochs to {target:.0%} val" if target * 100 % 1 == 0 else f"Epochs to {target:.1%} val",
            _to_target,
            rank=5,
        ),
        Column("Trainable parameters", lambda row: quantity(row["trainable_parameters"])),
        Column("Frozen: blocks / parameters / FLOPs", _frozen),
    ]


def fitting(table: pd.DataFrame, target: float, width: int) -> list[Column]:
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


def write_markdown(path: Path, table: pd.DataFrame, target: float, notes: list[str]) -> None:
    """Write the table as people read it, with per cent, and the notes below."""
    write_atomic(
        path, markdown(table, columns(target)) + "".join(f"\n- {_markdown_text(note)}" for note in notes) + "\n"
    )


def markdown(table: pd.DataFrame, shown: list[Column]) -> str:
    """Return a Markdown table."""
    lines = [[column.heading for column in shown], ["--:" if column.number else ":--" for column in shown]]
    lines += [[_markdown_text(cell) for cell in row] for row in cells(table, shown)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _markdown_text(text: str) -> str:
    """Keep a name from ending its cell, or from being read as markup."""
    for sign in "\\|`*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text

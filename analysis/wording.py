"""Numbers and tables as people read them: per cent, minutes, millions, and a dash where there is nothing to tell."""

import math
import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.repeats import unit
from analysis.stats import ALPHA
from finetune.system.atomic import write_atomic
from finetune.system.output import one_line

if TYPE_CHECKING:
    from analysis.claims import Claim
    from analysis.tables import Comparison

NONE = "–"
LONG_NAME = 24  # signs of a class's name that are shown in a table
MENTIONED = 0.05  # filling caches is told apart where it takes such a share of what the run took otherwise


def percent(share: float, digits: int = 1) -> str:
    """Return 0.871 as "87.1%"."""
    text = NONE if pd.isna(share) else f"{share:.{digits}%}"
    return text.removeprefix("-") if not text.strip("-0.%") else text  # nobody reads -0% as what it is


def goal(target: float) -> str:
    """Return a target accuracy as it was given: 0.8 as "80%", 0.925 as "92.5%"."""
    return f"{target * 100:.6g}%"


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
    to_target = f"Epochs to {goal(target)} val"
    return [
        Column("Strategy", lambda row: str(row["strategy"]), number=False, rank=0),
        Column("Recipe", lambda row: str(row["recipe"]), number=False, rank=1),
        Column("Test", lambda row: percent(row["test_accuracy_mean"]), rank=0, sort="test_accuracy_mean"),
        Column("Spread", _spread, rank=4, sort="test_accuracy_sd"),
        Column(
            "95% interval",
            lambda row: interval(row["test_accuracy_low"], row["test_accuracy_high"]),
            rank=1,
            sort="test_accuracy_low",
        ),
        Column("Seeds", _repeats, rank=3, sort="n"),
        Column("Val", lambda row: percent(row["val_accuracy_mean"]), rank=3, sort="val_accuracy_mean"),
        Column("Macro-F1", lambda row: percent(row["macro_f1_mean"]), rank=6, sort="macro_f1_mean"),
        Column("Lowest recall", _lowest_recall, rank=8, sort="lowest_recall"),
        Column("Runs", lambda row: f"{row['runs']}", sort="runs"),
        Column("Train time", spent, rank=2, sort="train_seconds_mean"),
        Column("Time saved", lambda row: percent(row["time_saved"], 0), rank=7, sort="time_saved"),
        Column("Compute saved", lambda row: percent(row["compute_saved"], 0), rank=2, sort="compute_saved"),
        Column(to_target, _to_target, rank=5, sort="epochs_to_target_median"),
        Column("Trainable parameters", lambda row: quantity(row["trainable_parameters"]), sort="trainable_parameters"),
    ]


def cost_columns() -> list[Column]:
    """Return the columns of the table of costs."""
    return [
        Column("Strategy", lambda row: str(row["strategy"]), number=False),
        Column("Whole run", lambda row: duration(row["wall_seconds_mean"]), sort="wall_seconds_mean"),
        Column("Training", spent, sort="train_seconds_mean"),
        Column("Saved, measured", _time_saved, sort="time_saved"),
        Column("Pictures/s", lambda row: quantity(row["images_per_second_mean"]), sort="images_per_second_mean"),
        Column("Peak memory", lambda row: memory(row["peak_memory_mb"]), sort="peak_memory_mb"),
        Column("Energy", lambda row: energy(row["energy_joules_mean"]), sort="energy_joules_mean"),
        Column("Forward, a picture", lambda row: gflops(row["forward_gflops"]), sort="forward_gflops"),
        Column("Backward, a picture", lambda row: gflops(row["backward_gflops"]), sort="backward_gflops"),
        Column("A run, FLOPs", lambda row: gflops(row["train_gflops_mean"]), sort="train_gflops_mean"),
        Column("Saved, FLOPs", lambda row: percent(row["compute_saved"], 0), sort="compute_saved"),
        Column(
            "Saved, FLOPs with cache",
            lambda row: percent(row["compute_saved_with_cache"], 0),
            sort="compute_saved_with_cache",
        ),
        Column("Frozen: blocks / parameters / FLOPs", _frozen, sort="frozen_flop_share"),
        Column("Trainable parameters", lambda row: quantity(row["trainable_parameters"]), sort="trainable_parameters"),
    ]


def _told_apart(row: "pd.Series[Any]") -> str:
    return "too few seeds" if pd.isna(row["p_holm"]) else "yes" if row["p_holm"] < ALPHA else "no"


def pair_columns() -> list[Column]:
    """Return the columns of the table of pairs."""
    return [
        Column("Strategies", lambda row: f"{row['strategy']} – {row['other']}", number=False),
        Column("Difference", lambda row: f"{row['difference'] * 100:+.1f} points", sort="difference"),
        Column(
            "95% interval", lambda row: points(row["difference_low"], row["difference_high"]), sort="difference_low"
        ),
        Column("p (Holm)", lambda row: p_text(row["p_holm"]).removeprefix("= "), sort="p_holm"),
        Column("Distinguishable", _told_apart, number=False),
        Column(
            "Probability of improvement",
            lambda row: percent(row["probability_of_improvement"], 0),
            sort="probability_of_improvement",
        ),
        Column(
            "Only one right",
            lambda row: NONE if pd.isna(row["only_one"]) else f"{row['only_one']:.0f} : {row['only_other']:.0f}",
        ),
        Column("McNemar p (Holm)", lambda row: p_text(row["mcnemar_p_holm"]).removeprefix("= "), sort="mcnemar_p_holm"),
    ]


def memory(megabytes: float) -> str:
    """Return 1810 MB as "1.8 GB"."""
    return NONE if pd.isna(megabytes) else f"{megabytes / 1000:.1f} GB"


def energy(joules: float) -> str:
    """Return joules as watt-hours, which people pay for."""
    if math.isnan(joules):
        return "not measured"
    return f"{joules / 3600:.3g} Wh" if joules < 3.6e6 else f"{joules / 3.6e6:.3g} kWh"


def gflops(count: float) -> str:
    """Return 16840 as "16.8 TFLOPs"."""
    if math.isnan(count):
        return NONE
    for size, sign in ((1e6, "P"), (1e3, "T"), (1, "G"), (1e-3, "M")):
        if count >= size:
            return f"{count / size:.3g} {sign}FLOPs"
    return f"{count * 1e6:.3g} kFLOPs"


def _time_saved(row: "pd.Series[Any]") -> str:
    """Return the share of time saved, and the range of single runs."""
    if pd.isna(row["time_saved"]):
        return NONE
    low, high = row["time_saved_min"], row["time_saved_max"]
    among = f" ({low * 100:.0f} to {high * 100:.0f}%)" if high - low > 0.005 else ""
    return percent(row["time_saved"], 0) + among


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


def write_markdown(path: Path, comparison: "Comparison", claims: "list[Claim]", notes: list[str]) -> None:
    """Write the tables as people read them, with per cent, and the notes below the first."""
    parts = [
        markdown(comparison.strategies, columns(comparison.target)),
        "".join(f"- {markdown_text(note)}\n" for note in notes),
        "## Costs\n\n" + markdown(comparison.strategies, cost_columns()),
    ]
    if len(comparison.pairs):
        parts.append("## Two by two, on the same test pictures\n\n" + markdown(comparison.pairs, pair_columns()))
    parts.append("## Claims\n\n" + claims_markdown(claims))
    write_atomic(path, "\n".join(parts))


def claims_markdown(claims: "list[Claim]") -> str:
    """Return the claims beside what was found, as a Markdown table."""
    lines = [["Claim", "Claimed", "Found here", "95% interval", ""], [":--", "--:", "--:", "--:", ":--"]]
    lines += [[markdown_text(text) for text in astuple(claim)] for claim in claims]
    return _rows(lines)


def markdown(table: pd.DataFrame, shown: list[Column]) -> str:
    """Return a Markdown table."""
    lines = [[column.heading for column in shown], ["--:" if column.number else ":--" for column in shown]]
    lines += [[markdown_text(cell) for cell in row] for row in cells(table, shown)]
    return _rows(lines)


def _rows(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def markdown_text(text: str) -> str:
    """Keep a name on its line and in its cell, and from being read as markup."""
    text = one_line(" ".join(text.split()))
    for sign in "\\|`*_<>[]~#":
        text = text.replace(sign, f"\\{sign}")
    return text


def code(value: object) -> str:
    """Return a text as code in Markdown: between more backticks than it has in a row."""
    text = one_line(" ".join(str(value).split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"

"""Numbers as text: per cent, minutes, millions, and a dash where there is no number."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

STRATEGIES = ("scratch", "head", "partial", "gradual", "lpft", "full")  # the order of every table, figure and legend
NONE = "–"
MIN_SHOWN_CACHE_SHARE = 0.05  # of the training time without it, from which the time to fill caches is shown apart


def sort_strategies(strategies: Iterable[str]) -> list[str]:
    """Return the distinct strategies in the order of STRATEGIES, unknown ones at the end."""
    found = set(strategies)
    return [name for name in STRATEGIES if name in found] + sorted(found - set(STRATEGIES))


def percent(share: float, digits: int = 1) -> str:
    """Return 0.871 as "87.1%"."""
    text = NONE if pd.isna(share) else f"{share:.{digits}%}"
    return text.removeprefix("-") if not text.strip("-0.%") else text  # no -0%


def format_target(target: float) -> str:
    """Return a target accuracy with the digits it was given with: 0.8 as "80%", 0.925 as "92.5%"."""
    return f"{target * 100:.6g}%"


def format_interval(low: float, high: float) -> str:
    """Return an interval of accuracies as "83.1–90.2%"."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{low * 100:.1f}–{high * 100:.1f}%"


def accuracy_interval(row: "pd.Series[Any]") -> str:
    """Return the interval of a recipe's test accuracy."""
    return format_interval(row["test_accuracy_low"], row["test_accuracy_high"])


def format_points(low: float, high: float) -> str:
    """Return an interval of differences of accuracies as "-1.2 to 3.4 points"."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{low * 100:.1f} to {high * 100:.1f} points"


def format_p(p: float) -> str:
    """Return a p-value as "= 0.032" or "< 0.001"."""
    return "not known" if pd.isna(p) else "< 0.001" if p < 0.001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def format_duration(seconds: float) -> str:
    """Return seconds as "42 s", "12.5 min" or "3.1 h"."""
    if math.isnan(seconds):
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def train_time_text(row: "pd.Series[Any]") -> str:
    """Return a run's training time; filling caches apart, which the first run to need them does for all others."""
    own, shared = row["train_seconds_mean"] - row["cache_seconds_mean"], row["cache_seconds_mean"]
    is_shown = shared >= MIN_SHOWN_CACHE_SHARE * own
    return format_duration(own) + (f" + {format_duration(shared)} cache" if is_shown else "")


def format_quantity(number: float) -> str:
    """Return 20190000 as "20.2 M"."""
    if number < 999.5:
        return f"{number:.0f}"
    return _scaled(number, ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")))


def format_memory(megabytes: float) -> str:
    """Return 1810 MB as "1.8 GB"."""
    return NONE if pd.isna(megabytes) else f"{megabytes / 1000:.1f} GB"


def format_energy(joules: float) -> str:
    """Return joules as "12.5 Wh" or "1.2 kWh"."""
    return "not measured" if math.isnan(joules) else _scaled(joules, ((3.6e6, "kWh"), (3600, "Wh")))


def format_gflops(count: float) -> str:
    """Return 16840 as "16.8 TFLOPs"."""
    return _scaled(count, ((1e6, "PFLOPs"), (1e3, "TFLOPs"), (1, "GFLOPs"), (1e-3, "MFLOPs"), (1e-6, "kFLOPs")))


def _scaled(number: float, units: Sequence[tuple[float, str]]) -> str:
    """Return the number with three digits in the largest unit of which it is at least 1 when rounded.

    Args:
        units: (size, name), the largest first; the last one is for all smaller numbers.
    """
    if math.isnan(number):
        return NONE
    size, name = next(((size, name) for size, name in units if float(f"{number / size:.3g}") >= 1), units[-1])
    value = number / size
    return f"{value:.3g} {name}" if value < 999.5 else f"{value:,.0f} {name}"

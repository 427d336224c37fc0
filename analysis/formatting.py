"""Numbers as people read them: per cent, minutes, millions, and a dash where there is none."""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

STRATEGIES = ("scratch", "head", "partial", "gradual", "lpft", "full")  # the order of every table, figure and legend


def in_order(strategies: Iterable[str]) -> list[str]:
    """Return the strategies without repeats, from the one that trains from nothing to the one that trains all."""
    found = set(strategies)
    return [name for name in STRATEGIES if name in found] + sorted(found - set(STRATEGIES))


NONE = "–"


MENTIONED = 0.05  # filling caches is told apart where it takes such a share of what the run took otherwise


def percent(share: float, digits: int = 1) -> str:
    """Return 0.871 as "87.1%"."""
    text = NONE if pd.isna(share) else f"{share:.{digits}%}"
    return text.removeprefix("-") if not text.strip("-0.%") else text  # nobody reads -0% as what it is


def format_target(target: float) -> str:
    """Return a target accuracy as it was given: 0.8 as "80%", 0.925 as "92.5%"."""
    return f"{target * 100:.6g}%"


def format_interval(low: float, high: float) -> str:
    """Return an interval of accuracies as "83.1–90.2%"."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{low * 100:.1f}–{high * 100:.1f}%"


def format_points(low: float, high: float) -> str:
    """Return an interval of differences of accuracies as "-1.2 to 3.4 points"."""
    return NONE if pd.isna(low) or pd.isna(high) else f"{low * 100:.1f} to {high * 100:.1f} points"


def format_p(p: float) -> str:
    """Return a p-value as "= 0.032" or "< 0.001"."""
    return "not known" if pd.isna(p) else "< 0.001" if p < 0.001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def format_duration(seconds: float) -> str:
    """Return seconds as people say them: "42 s", "12.5 min", "3.1 h"."""
    if math.isnan(seconds):
        return NONE
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_quantity(number: float) -> str:
    """Return 20190000 as "20.2 M"."""
    if math.isnan(number):
        return NONE
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{sign}"
    return f"{number:.0f}"


def train_time_text(row: "pd.Series[Any]") -> str:
    """Return a run's training time, filling caches apart: the first run to need them pays that for all others."""
    own, shared = row["train_seconds_mean"] - row["cache_seconds_mean"], row["cache_seconds_mean"]
    return format_duration(own) + (f" + {format_duration(shared)} cache" if shared >= MENTIONED * own else "")


def format_memory(megabytes: float) -> str:
    """Return 1810 MB as "1.8 GB"."""
    return NONE if pd.isna(megabytes) else f"{megabytes / 1000:.1f} GB"


def format_energy(joules: float) -> str:
    """Return joules as watt-hours, which people pay for."""
    if math.isnan(joules):
        return "not measured"
    return f"{joules / 3600:.3g} Wh" if joules < 3.6e6 else f"{joules / 3.6e6:.3g} kWh"


def format_gflops(count: float) -> str:
    """Return 16840 as "16.8 TFLOPs"."""
    if math.isnan(count):
        return NONE
    for size, sign in ((1e6, "P"), (1e3, "T"), (1, "G"), (1e-3, "M")):
        if count >= size:
            return f"{count / size:.3g} {sign}FLOPs"
    return f"{count * 1e6:.3g} kFLOPs"

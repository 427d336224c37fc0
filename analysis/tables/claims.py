"""The claims that this suite was built to check, beside the results of a sweep.

From a student's report on EfficientNetV2-S and iNaturalist-12K: 87.6% with the last third tuned against 39.6% from
scratch, 80% by epoch 5, and 40% of compute saved by freezing. One run each, without intervals.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import NONE, format_interval, format_points, percent
from analysis.tables.comparison import Comparison
from analysis.tables.target import reached_curve, share_by, times_to_target

PARTIAL, SCRATCH, TARGET, BY_EPOCH, SAVED = 0.876, 0.396, 0.8, 5, 0.40
BACKBONE, DATA = "efficientnet_v2_s", "inaturalist12k"
TOLERANCE = 0.05  # within which a share without an interval counts as claimed
COMPUTE_SAVED = "compute saved by freezing (partial against full)"


@dataclass(frozen=True)
class Claim:
    """A row of the table of claims, as text.

    Attributes:
        said: the claim.
        claimed, found, interval: numbers; a dash where the sweep has none.
        verdict: what the result means for the claim, in a few words.
    """

    said: str
    claimed: str
    found: str
    interval: str
    verdict: str


def check_claims(comparison: Comparison, runs: pd.DataFrame, epochs: pd.DataFrame) -> tuple[list[Claim], str]:
    """Return the claims, and how this sweep differs from the one they were made on ("" if it does not).

    Args:
        runs: of the chosen recipes.
        epochs: of any runs.
    """
    rows = {row["strategy"]: row for _, row in comparison.arms.iterrows()}
    claims = [
        _accuracy("last third tuned (partial)", PARTIAL, rows.get("partial")),
        _accuracy("from scratch", SCRATCH, rows.get("scratch")),
        _difference(comparison.pairs),
        _by_epoch(runs[runs["strategy"] == "partial"], epochs),
        *_saved(rows.get("partial")),
    ]
    return claims, _other_setting(runs)


def _accuracy(name: str, claimed: float, row: "pd.Series[Any] | None") -> Claim:
    claim = f"{name}: test accuracy"
    if row is None:
        return _not_in_sweep(claim, percent(claimed))
    low, high = row["test_accuracy_low"], row["test_accuracy_high"]
    found, interval = percent(row["test_accuracy_mean"]), format_interval(low, high)
    return Claim(claim, percent(claimed), found, interval, _compare_with_interval(claimed, low, high))


def _difference(pairs: pd.DataFrame) -> Claim:
    claim, claimed = "partial minus scratch", f"{(PARTIAL - SCRATCH) * 100:.1f} points"
    found = pairs[(pairs["strategy"] == "scratch") & (pairs["other"] == "partial")]
    if found.empty:
        return _not_in_sweep(claim, claimed)
    pair = found.iloc[0]
    low, high = -pair["difference_high"], -pair["difference_low"]
    verdict = _compare_with_interval(PARTIAL - SCRATCH, low, high)
    return Claim(claim, claimed, f"{-pair['difference'] * 100:.1f} points", format_points(low, high), verdict)


def _by_epoch(runs: pd.DataFrame, epochs: pd.DataFrame) -> Claim:
    claim, claimed = f"partial: {TARGET:.0%} val accuracy by epoch {BY_EPOCH}", "1 run of 1"
    times = times_to_target(runs, epochs, TARGET)
    if times.empty:
        return _not_in_sweep(claim, claimed)
    share, low, high = share_by(reached_curve(times["epochs"], times["reached"]), BY_EPOCH)
    if share == 0 and (times["epochs"] < BY_EPOCH).any():
        return Claim(claim, claimed, NONE, NONE, f"not known: runs ended before epoch {BY_EPOCH}")
    verdict = "holds" if share == 1 else "does not hold" if share == 0 else "holds for some runs"
    found = f"{round(share * len(times))} of {len(times)} runs"
    return Claim(claim, claimed, found, format_interval(low, high), verdict)


def _saved(row: "pd.Series[Any] | None") -> list[Claim]:
    if row is None:
        return [_not_in_sweep(COMPUTE_SAVED, percent(SAVED, 0))]
    claims = [_share_saved("counted FLOPs", row["compute_saved"])]
    if pd.notna(row["compute_saved_with_cache"]):
        claims.append(_share_saved("FLOPs with the cache", row["compute_saved_with_cache"]))
    if pd.notna(row["time_saved"]):
        ends = f"{percent(row['time_saved_min'], 0)} to {percent(row['time_saved_max'], 0)} (single runs)"
        claims.append(_share_saved("measured time", row["time_saved"], ends))
    return claims


def _share_saved(measure: str, found: float, interval: str = NONE) -> Claim:
    verdict = "about as claimed" if abs(found - SAVED) <= TOLERANCE else "more" if found > SAVED else "less"
    return Claim(f"{COMPUTE_SAVED}, {measure}", percent(SAVED, 0), percent(found, 0), interval, verdict)


def _compare_with_interval(claimed: float, low: float, high: float) -> str:
    if np.isnan(low):
        return "no interval to judge by"
    return "inside the interval" if low <= claimed <= high else "higher than claimed" if low > claimed else "lower"


def _not_in_sweep(claim: str, claimed: str) -> Claim:
    return Claim(claim, claimed, NONE, NONE, "not in this sweep")


def _other_setting(runs: pd.DataFrame) -> str:
    """Return a sentence if the runs have another backbone or other data than the claims, else ""."""
    data = sorted({Path(str(name)).name for name in runs.get("data", [])})
    backbones = sorted({str(name) for name in runs.get("backbone", [])})
    if data == [DATA] and backbones == [BACKBONE]:
        return ""
    return (
        f"The claims are about {BACKBONE} on {DATA}, this sweep about "
        f"{', '.join(backbones) or 'another network'} on {', '.join(data) or 'other data'}: "
        "it shows what the claims would be here, and neither confirms nor refutes them."
    )

"""The claims that this suite was built to check, and what a sweep found.

A student's report on EfficientNetV2-S and iNaturalist-12K: 87.6% with the last third tuned against 39.6% from scratch,
80% by epoch 5, and 40% of compute saved by freezing. One run each, no intervals.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import NONE, format_interval, format_points, percent
from analysis.tables.comparison import Comparison
from analysis.tables.target import reached_curve, share_by, times_to_target

PARTIAL, SCRATCH, TARGET, BY_EPOCH, SAVED = 0.876, 0.396, 0.8, 5, 0.40
BACKBONE, DATA = "efficientnet_v2_s", "inaturalist12k"


@dataclass(frozen=True)
class Claim:
    """A claim beside what was found, as people read it.

    Attributes:
        said: the claim.
        claimed, found, interval: the numbers; a dash where the sweep does not tell.
        verdict: what that means for the claim, in a few words.
    """

    said: str
    claimed: str
    found: str
    interval: str
    verdict: str


def check_claims(comparison: Comparison, runs: pd.DataFrame, epochs: pd.DataFrame) -> tuple[list[Claim], str]:
    """Return the claims, and what sets this sweep apart from the one they were made on ("" where nothing does).

    Args:
        runs: of the chosen recipes.
        epochs: of any runs.
    """
    rows = {row["strategy"]: row for _, row in comparison.strategies.iterrows()}
    claims = [_accuracy(rows.get(name), name, value) for name, value in (("partial", PARTIAL), ("scratch", SCRATCH))]
    claims += [_difference_claim(comparison), _by_epoch(runs, epochs), *_saved(rows.get("partial"))]
    return claims, _setting(runs)


def _accuracy(row: "pd.Series[float] | None", name: str, claimed: float) -> Claim:
    said = f"{'last third tuned (partial)' if name == 'partial' else 'from scratch'}: test accuracy"
    if row is None:
        return _not_in_sweep(said, percent(claimed))
    low, high = row["test_accuracy_low"], row["test_accuracy_high"]
    return Claim(
        said,
        percent(claimed),
        percent(row["test_accuracy_mean"]),
        format_interval(low, high),
        _against(claimed, low, high),
    )


def _difference_claim(comparison: Comparison) -> Claim:
    said, claimed = "partial minus scratch", f"{(PARTIAL - SCRATCH) * 100:.1f} points"
    pairs = comparison.pairs
    found = pairs[(pairs["strategy"] == "scratch") & (pairs["other"] == "partial")]
    if found.empty:
        return _not_in_sweep(said, claimed)
    pair = found.iloc[0]
    low, high = -pair["difference_high"], -pair["difference_low"]
    return Claim(
        said,
        claimed,
        f"{-pair['difference'] * 100:.1f} points",
        format_points(low, high),
        _against(PARTIAL - SCRATCH, low, high),
    )


def _by_epoch(runs: pd.DataFrame, epochs: pd.DataFrame) -> Claim:
    said = f"partial: {TARGET:.0%} val accuracy by epoch {BY_EPOCH}"
    times = times_to_target(runs[runs["strategy"] == "partial"], epochs, TARGET)
    if times.empty:
        return _not_in_sweep(said, "1 run of 1")
    share, low, high = share_by(reached_curve(times["epochs"], times["reached"]), BY_EPOCH)
    by_then = int((times["reached"] & (times["epochs"] <= BY_EPOCH)).sum())
    verdict = "holds" if share == 1 else "does not hold" if share == 0 else "holds for some runs"
    found = f"{by_then} of {len(times)} runs" if not np.isnan(share) else NONE
    return Claim(said, "1 run of 1", found, format_interval(low, high), verdict)


def _saved(row: "pd.Series[float] | None") -> list[Claim]:
    said = "compute saved by freezing (partial against full)"
    if row is None:
        return [_not_in_sweep(said, percent(SAVED, 0))]
    counted, cached = row["compute_saved"], row["compute_saved_with_cache"]
    claims = [Claim(f"{said}, counted FLOPs", percent(SAVED, 0), percent(counted, 0), NONE, _near(counted))]
    if pd.notna(cached):
        found = percent(cached, 0)
        claims.append(Claim(f"{said}, FLOPs with the cache", percent(SAVED, 0), found, NONE, _near(cached)))
    if pd.notna(row["time_saved"]):
        ends = f"{percent(row['time_saved_min'], 0)} to {percent(row['time_saved_max'], 0)} (single runs)"
        found = percent(row["time_saved"], 0)
        claims.append(Claim(f"{said}, measured time", percent(SAVED, 0), found, ends, _near(row["time_saved"])))
    return claims


def _near(share: float) -> str:
    """Say where a share without an interval lies; within 5 points counts as the same."""
    return "about as claimed" if abs(share - SAVED) <= 0.05 else "more" if share > SAVED else "less"


def _against(claimed: float, low: float, high: float) -> str:
    if np.isnan(low):
        return "no interval to judge by"
    return "inside the interval" if low <= claimed <= high else "higher than claimed" if low > claimed else "lower"


def _not_in_sweep(said: str, claimed: str) -> Claim:
    return Claim(said, claimed, NONE, NONE, "not in this sweep")


def _setting(runs: pd.DataFrame) -> str:
    data = {str(name) for name in runs["data"]} if "data" in runs else set()
    backbones = {str(name) for name in runs["backbone"]} if "backbone" in runs else set()
    if data == {DATA} and backbones == {BACKBONE}:
        return ""
    return (
        f"The claims are about {BACKBONE} on {DATA}, this sweep about "
        f"{', '.join(sorted(backbones)) or 'another network'} on other images: "
        "it shows what the claims would be here, and neither confirms nor refutes them."
    )

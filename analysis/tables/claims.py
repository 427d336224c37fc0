"""The claims of somebody's report, beside the results of a sweep that names them in a comment of its file.

`# Claims: claims/inaturalist12k.yaml` is a file beside the sweep files (see sweeps/claims/).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.errors import InputError
from analysis.formatting import NONE, format_interval, format_points, percent
from analysis.tables.comparison import Comparison
from analysis.tables.target import reached_curve, share_by, times_to_target
from finetune.system import documents

SWEEPS = Path(__file__).parents[2] / "sweeps"
TOLERANCE = 0.05  # within which a share without an interval counts as claimed
KINDS = ("test_accuracy", "difference", "val_accuracy", "compute_saved")  # each claim has one
_NAMED = re.compile(r"^# Claims: (\S.*)$", re.MULTILINE)


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


@dataclass(frozen=True)
class CheckedClaims:
    """The claims that a sweep names, checked.

    Attributes:
        source: whose claims they are; "" where the sweep names none.
        setting: how this sweep differs from the one they were made on; "" if it does not.
    """

    source: str = ""
    setting: str = ""
    checked: tuple[Claim, ...] = ()


def read_claims(sweep_text: str | None) -> Mapping[str, Any] | None:
    """Return the file of claims that a sweep file names; None if it names none.

    Raises:
        InputError: the file can't be read, or is no list of claims.
    """
    named = _NAMED.search(sweep_text or "")
    if named is None:
        return None
    path = SWEEPS / named[1].strip()
    try:
        content: Any = documents.load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"The claims of {path} can't be read: {error}") from error
    claims = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(claims, list) or not all(_is_claim(claim) for claim in claims):
        raise InputError(f"{path}: `claims` is no list of claims, each with `arm` and one of {', '.join(KINDS)}")
    return dict(content)


def _is_claim(claim: Any) -> bool:
    numbers = [claim[kind] for kind in KINDS if kind in claim] if isinstance(claim, dict) else []
    return "arm" in claim and len(numbers) == 1 and isinstance(numbers[0], float | int) if numbers else False


def check_claims(
    document: Mapping[str, Any] | None, comparison: Comparison, runs: pd.DataFrame, epochs: pd.DataFrame
) -> CheckedClaims:
    """Return the claims beside the results.

    Args:
        document: see `read_claims`.
        runs: of the chosen recipes.
        epochs: of any runs.
    """
    if document is None:
        return CheckedClaims()
    checked: list[Claim] = []
    for claim in document["claims"]:
        checked += _check(claim, comparison, runs, epochs)
    return CheckedClaims(str(document.get("source", "")), _other_setting(document, runs), tuple(checked))


def _check(
    claim: Mapping[str, Any], comparison: Comparison, runs: pd.DataFrame, epochs: pd.DataFrame
) -> Iterable[Claim]:
    arm = str(claim["arm"])
    rows = {str(row["arm"]): row for _, row in comparison.arms.iterrows()}
    if "test_accuracy" in claim:
        return [_accuracy(arm, float(claim["test_accuracy"]), rows.get(arm))]
    if "difference" in claim:
        return [_difference(arm, str(claim.get("minus")), float(claim["difference"]), comparison.pairs)]
    if "val_accuracy" in claim:
        target, by_epoch = float(claim["val_accuracy"]), int(claim.get("by_epoch", 1))
        return [_by_epoch(arm, target, by_epoch, runs[runs["arm"] == arm], epochs)]
    return _saved(arm, float(claim["compute_saved"]), rows.get(arm))


def _accuracy(arm: str, claimed: float, row: "pd.Series[Any] | None") -> Claim:
    claim = f"{arm}: test accuracy"
    if row is None:
        return _not_in_sweep(claim, percent(claimed))
    low, high = row["test_accuracy_low"], row["test_accuracy_high"]
    found, interval = percent(row["test_accuracy_mean"]), format_interval(low, high)
    return Claim(claim, percent(claimed), found, interval, _compare_with_interval(claimed, low, high))


def _difference(arm: str, other: str, claimed: float, pairs: pd.DataFrame) -> Claim:
    claim, text = f"{arm} minus {other}", f"{claimed * 100:.1f} points"
    found = pairs[pairs["strategy"].isin([arm, other]) & pairs["other"].isin([arm, other])]
    if found.empty or arm == other:
        return _not_in_sweep(claim, text)
    pair = found.iloc[0]
    sign = 1 if pair["strategy"] == arm else -1
    low, high = sorted(sign * pair[f"difference_{end}"] for end in ("low", "high"))
    verdict = _compare_with_interval(claimed, low, high)
    return Claim(claim, text, f"{sign * pair['difference'] * 100:.1f} points", format_points(low, high), verdict)


def _by_epoch(arm: str, target: float, by_epoch: int, runs: pd.DataFrame, epochs: pd.DataFrame) -> Claim:
    claim, claimed = f"{arm}: {target:.0%} val accuracy by epoch {by_epoch}", "1 run of 1"
    times = times_to_target(runs, epochs, target)
    if times.empty:
        return _not_in_sweep(claim, claimed)
    share, low, high = share_by(reached_curve(times["epochs"], times["reached"]), by_epoch)
    if share == 0 and (times["epochs"] < by_epoch).any():
        return Claim(claim, claimed, NONE, NONE, f"not known: runs ended before epoch {by_epoch}")
    verdict = "holds" if share == 1 else "does not hold" if share == 0 else "holds for some runs"
    found = f"{round(share * len(times))} of {len(times)} runs"
    return Claim(claim, claimed, found, format_interval(low, high), verdict)


def _saved(arm: str, claimed: float, row: "pd.Series[Any] | None") -> list[Claim]:
    claim = f"{arm}: compute saved against full"
    if row is None:
        return [_not_in_sweep(claim, percent(claimed, 0))]
    found = {"counted FLOPs": row["compute_saved"], "FLOPs with the cache": row["compute_saved_with_cache"]}
    claims = [_share_saved(f"{claim}, {name}", claimed, share) for name, share in found.items() if pd.notna(share)]
    if pd.notna(row["time_saved"]):
        ends = f"{percent(row['time_saved_min'], 0)} to {percent(row['time_saved_max'], 0)} (single runs)"
        claims.append(_share_saved(f"{claim}, measured time", claimed, row["time_saved"], ends))
    return claims


def _share_saved(claim: str, claimed: float, found: float, interval: str = NONE) -> Claim:
    verdict = "about as claimed" if abs(found - claimed) <= TOLERANCE else "more" if found > claimed else "less"
    return Claim(claim, percent(claimed, 0), percent(found, 0), interval, verdict)


def _compare_with_interval(claimed: float, low: float, high: float) -> str:
    if np.isnan(low):
        return "no interval to judge by"
    return "inside the interval" if low <= claimed <= high else "higher than claimed" if low > claimed else "lower"


def _not_in_sweep(claim: str, claimed: str) -> Claim:
    return Claim(claim, claimed, NONE, NONE, "not in this sweep")


def _other_setting(document: Mapping[str, Any], runs: pd.DataFrame) -> str:
    """Return a sentence if the runs have another backbone or other data than the claims, else ""."""
    data = sorted({Path(str(name)).name for name in runs.get("data", [])})
    backbones = sorted({str(name) for name in runs.get("backbone", [])})
    if data == [document.get("data")] and backbones == [document.get("backbone")]:
        return ""
    return (
        f"The claims are about {document.get('backbone')} on {document.get('data')}, this sweep about "
        f"{', '.join(backbones) or 'another network'} on {', '.join(data) or 'other data'}: "
        "it shows what the claims would be here, and neither confirms nor refutes them."
    )

"""What is known of a sweep beside its numbers: the data, where its runs come from, and what was left out."""

import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.sources.sweep import Sweep
from analysis.tables.schema import plain_value

USED = (
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "seaborn",
    "scikit-learn",
)  # the versions that can change a number or a figure


def data_facts(sweep: Sweep, predictions: pd.DataFrame | None) -> dict[str, Any]:
    """Return what is known of the data: name, whether it is synthetic, classes, pictures a split, chance, majority."""
    first = sweep.finished.iloc[0]
    given = sorted({Path(str(name)).name or str(name) for name in sweep.finished.get("data", ["unknown"])})
    synthetic = bool((sweep.finished["data"] == "demo").any()) if "data" in sweep.finished else False
    classes = first.get("provenance/classes")
    classes = [str(name) for name in classes] if isinstance(classes, list) else []
    told = first.get("provenance/splits_from")
    splits = {split: plain_value(first.get(f"provenance/splits/{split}")) for split in ("train", "val", "test")}
    shares = predictions["label"].value_counts(normalize=True) if predictions is not None else None
    return {
        "name": "demo (synthetic pictures)" if given == ["demo"] else " and ".join(given),
        "synthetic": synthetic,
        "fingerprint": plain_value(first.get("provenance/data_fingerprint")),
        "classes": classes,
        "splits": {split: None if count is None else int(count) for split, count in splits.items()},
        "splits_from": [str(line) for line in told] if isinstance(told, list) else [],
        "chance": 1 / len(classes) if classes else None,
        "majority_share": None if shares is None else float(shares.iloc[0]),
        "majority_class": None if shares is None else str(sorted(shares[shares == shares.max()].index)[0]),
    }


def origin(sweep: Sweep) -> dict[str, list[str]]:
    """Return where the finished runs come from: each fact with the values it took."""
    asked = {
        "commit": "provenance/git_commit",
        "python": "provenance/versions/python",
        "torch": "provenance/versions/torch",
        "torchvision": "provenance/versions/torchvision",
        "device": "provenance/device",
        "backbone": "backbone",
        "weights": "weights",
        "weights hash": "provenance/weights_hash",
    }
    found = {name: _values(sweep.finished, column) for name, column in asked.items()}
    return {name: values for name, values in found.items() if values}


def _values(runs: pd.DataFrame, column: str) -> list[str]:
    return sorted({str(value) for value in runs[column].dropna()}) if column in runs else []


def versions() -> dict[str, str]:
    """Return the versions of what made the numbers and figures of the report."""
    return {"python": platform.python_version(), **{name: version(name) for name in USED}}


def left_out_groups(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the runs that do not count, grouped by state and reason, the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for _, run in sweep.left_out.fillna({"reason": ""}).iterrows():
        groups.setdefault((run["state"], run["reason"]), []).append(run["run"])
    rows = [{"state": state, "reason": reason, "runs": names} for (state, reason), names in groups.items()]
    return sorted(rows, key=lambda row: -len(row["runs"]))


def left_out_sentence(sweep: Sweep) -> str | None:
    """Return how many runs do not count, by state, or None where all do."""
    counts = Counter(sweep.left_out["state"])
    if not counts:
        return None
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{counts.total()} of {len(sweep.runs)} runs are left out ({told})."

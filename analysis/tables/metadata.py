"""Facts about a sweep beside its results: its data, the origin of its runs, and the runs that were left out."""

import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.sources.sweep import Sweep
from analysis.tables.schema import plain_value

PACKAGES = ("numpy", "pandas", "scipy", "matplotlib", "seaborn", "scikit-learn")  # that numbers and figures depend on
ORIGIN = {
    "commit": "provenance/git_commit",
    "python": "provenance/versions/python",
    "torch": "provenance/versions/torch",
    "torchvision": "provenance/versions/torchvision",
    "device": "provenance/device",
    "backbone": "backbone",
    "weights": "weights",
    "weights hash": "provenance/weights_hash",
}


def data_facts(sweep: Sweep, predictions: pd.DataFrame | None) -> dict[str, Any]:
    """Return name, fingerprint, classes, images per split, chance and majority of the data, and whether synthetic.

    Args:
        predictions: of one run, for the majority class; None where there are none.
    """
    first = sweep.finished.iloc[0]
    names = sorted({Path(str(name)).name or str(name) for name in sweep.finished.get("data", ["unknown"])})
    classes = first.get("provenance/classes")
    classes = [str(name) for name in classes] if isinstance(classes, list) else []
    splits_from = first.get("provenance/splits_from")
    splits = {split: plain_value(first.get(f"provenance/splits/{split}")) for split in ("train", "val", "test")}
    shares = predictions["label"].value_counts(normalize=True) if predictions is not None else None
    return {
        "name": "demo (synthetic images)" if names == ["demo"] else " and ".join(names),
        "synthetic": bool((sweep.finished["data"] == "demo").any()) if "data" in sweep.finished else False,
        "fingerprint": plain_value(first.get("provenance/data_fingerprint")),
        "classes": classes,
        "splits": {split: None if count is None else int(count) for split, count in splits.items()},
        "splits_from": [str(line) for line in splits_from] if isinstance(splits_from, list) else [],
        "chance": 1 / len(classes) if classes else None,
        "majority_share": None if shares is None else float(shares.iloc[0]),
        "majority_class": None if shares is None else str(sorted(shares[shares == shares.max()].index)[0]),
    }


def origin_facts(sweep: Sweep) -> dict[str, list[str]]:
    """Return the commit, versions, devices and weights of the finished runs: each with its distinct values."""
    runs = sweep.finished
    found = {
        name: sorted({str(value) for value in runs[column].dropna()})
        for name, column in ORIGIN.items()
        if column in runs
    }
    return {name: values for name, values in found.items() if values}


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages behind the numbers and figures of the report."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def left_out_groups(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the runs that were left out, grouped by state and reason, the largest group first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for _, run in sweep.left_out.fillna({"reason": ""}).iterrows():
        groups.setdefault((run["state"], run["reason"]), []).append(run["run"])
    rows = [{"state": state, "reason": reason, "runs": names} for (state, reason), names in groups.items()]
    return sorted(rows, key=lambda row: -len(row["runs"]))


def left_out_sentence(sweep: Sweep) -> str | None:
    """Return the number of runs that were left out, by state, or None if there are none."""
    counts = Counter(sweep.left_out["state"])
    if not counts:
        return None
    listed = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{counts.total()} of {len(sweep.runs)} runs are left out ({listed})."

"""Facts about a sweep beside its results: its data, the origin of its runs, and the runs that were left out."""

import platform
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.sources.sweep import Sweep
from analysis.tables.schema import plain_value
from finetune.rundir import keys
from finetune.system import documents

GENERAL_QUESTION = "Which fine-tuning recipe suits these images, what does it cost, and how sure are we?"
OPENING = "Question:"  # begins the comment at the top of a sweep file
PACKAGES = ("numpy", "pandas", "scipy", "matplotlib", "seaborn", "scikit-learn")  # that numbers and figures depend on
ORIGIN = {
    "commit": "provenance/git_commit",
    "python": "provenance/versions/python",
    "torch": "provenance/versions/torch",
    "torchvision": "provenance/versions/torchvision",
    "timm": "provenance/versions/timm",
    "device": "provenance/device",
    "backbone": "backbone",
    "weights": "weights",
    "weights hash": "provenance/weights_hash",
    "license of the weights": "provenance/weights_license",
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
    """Return the commit, versions, devices, weights and days of the finished runs: each with its distinct values."""
    runs = sweep.finished
    found = {
        name: sorted({str(value) for value in runs[column].dropna()})
        for name, column in ORIGIN.items()
        if column in runs
    }
    found["finished"] = _finished_on(runs)
    return {name: values for name, values in found.items() if values}


def _finished_on(runs: pd.DataFrame) -> list[str]:
    """Return the days on which the first and the last of these runs finished, by the dates of their files."""
    times = [path.stat().st_mtime for run in runs["path"] if (path := Path(run) / keys.SUMMARY).exists()]
    if not times:
        return []
    days = [datetime.fromtimestamp(moment, UTC).date().isoformat() for moment in (min(times), max(times))]
    return [days[0] if days[0] == days[1] else " to ".join(days)]


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


def sweep_question(sweep_text: str | None) -> str:
    """Return the question of a sweep file: its `description`, or the comment at its top, or a general question."""
    description = sweep_spec(sweep_text).get("description")
    if isinstance(description, str) and description.strip():
        return " ".join(description.split())
    return _opening_comment(sweep_text or "") or GENERAL_QUESTION


def sweep_title(sweep_text: str | None) -> str:
    """Return the `name` in a sweep file, or ""."""
    return " ".join(str(sweep_spec(sweep_text).get("name") or "").split())


def _opening_comment(text: str) -> str:
    """Return the first paragraph of the leading comment that begins with OPENING, without that word."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.lstrip("#").strip()
        if lines and not words:
            break
        if lines or words.startswith(OPENING):
            lines.append(words)
    paragraph = " ".join(lines).removeprefix(OPENING).strip()
    return paragraph[:1].upper() + paragraph[1:]


def sweep_spec(text: str | None) -> dict[str, Any]:
    """Return the content of a sweep file; {} if it is not one."""
    try:
        spec = documents.load_yaml(text or "")
    except yaml.YAMLError:
        return {}
    return spec if isinstance(spec, dict) else {}

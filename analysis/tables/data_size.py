"""The comparison at each training-set size, where a sweep was run on parts of the training images (`train_share`)."""

from dataclasses import dataclass, replace

import pandas as pd

from analysis.sources.sweep import Sweep
from analysis.tables.comparison import Comparison, compare
from analysis.tables.verdict import Verdict, decide

SHARE = "train_share"
TRAINING_IMAGES = "provenance/splits/train"


@dataclass(frozen=True)
class DataSizeResult:
    """The results at one training-set size.

    Attributes:
        share: of the training images.
        images: number of training images, or None where the runs did not record it.
    """

    share: float
    images: int | None
    comparison: Comparison
    verdict: Verdict


def split_by_train_share(sweep: Sweep) -> tuple[Sweep, list[Sweep]]:
    """Return the runs on the largest training set as a sweep, and those on smaller ones, the smallest first.

    One table over all of them would compare training-set sizes, not recipes.
    """
    shares = sweep.runs[SHARE].fillna(1.0)
    finished = sorted(set(shares[sweep.runs["state"] == "finished"]))
    if len(finished) < 2:
        return sweep, []
    parts = [replace(sweep, runs=sweep.runs[shares == share].reset_index(drop=True)) for share in finished]
    count = sum(len(part.finished) for part in parts[:-1])
    note = f"{count} runs on fewer training images appear only under their number of images."
    return replace(parts[-1], notes=(*sweep.notes, note)), parts[:-1]


def compare_data_sizes(
    smaller: list[Sweep], largest: Sweep, comparison: Comparison, margin: float
) -> list[DataSizeResult]:
    """Return the results by training-set size, the smallest first; empty where there is only one size.

    Args:
        smaller, largest: see `split_by_train_share`.
        comparison: of `largest`.
        margin: see `decide`.
    """
    if not smaller:
        return []
    parts = [(part, compare(part, comparison.target, comparison.fields)) for part in smaller]
    return [_result(part, table, margin) for part, table in [*parts, (largest, comparison)]]


def _result(sweep: Sweep, comparison: Comparison, margin: float) -> DataSizeResult:
    finished = sweep.finished
    recorded = finished[TRAINING_IMAGES] if TRAINING_IMAGES in finished else pd.Series(dtype=float)
    counts = pd.to_numeric(recorded, errors="coerce").dropna()
    return DataSizeResult(
        share=float(finished[SHARE].fillna(1.0).iloc[0]),
        images=int(counts.median()) if len(counts) else None,
        comparison=comparison,
        verdict=decide(comparison, margin),
    )


def data_size_frame(sizes: list[DataSizeResult]) -> pd.DataFrame:
    """Return one row per size and arm: images, arm, mean test accuracy, and its interval (low, high).

    Sizes without a known number of training images are left out.
    """
    names = {"test_accuracy_mean": "accuracy", "test_accuracy_low": "low", "test_accuracy_high": "high"}
    tables = [
        size.comparison.arms[["arm", *names]].rename(columns=names).assign(images=size.images)
        for size in sizes
        if size.images is not None
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["arm", "images"])

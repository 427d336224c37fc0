"""Which recipe for how many training pictures, where a sweep was run on parts of them (the field train_share)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import format_interval, percent, train_time_text
from analysis.sources.sweep import Sweep
from analysis.tables.comparison import Comparison, compare
from analysis.tables.recommendation import confidence_text, recommended
from analysis.tables.verdict import Verdict, decide

SHARE = "train_share"
PICTURES = "provenance/splits/train"


@dataclass(frozen=True)
class DataSizeResult:
    """What a sweep says of one number of training pictures.

    Attributes:
        share: of the training pictures.
        pictures: how many these are, or None where the runs do not tell.
        comparison: of the runs on these.
        result: the answer to them.
    """

    share: float
    pictures: int | None
    comparison: Comparison
    result: Verdict


def split_by_train_share(sweep: Sweep) -> tuple[Sweep, list[Sweep]]:
    """Return the runs on the most training pictures, as a sweep of its own, and those on fewer, the fewest first.

    A table over both would compare numbers of pictures, not recipes.
    """
    shares = sweep.runs[SHARE].fillna(1.0)
    finished = sorted(set(shares[sweep.runs["state"] == "finished"]))
    if len(finished) < 2:
        return sweep, []
    parts = [replace(sweep, runs=sweep.runs[shares == share].reset_index(drop=True)) for share in finished]
    count = sum(len(part.finished) for part in parts[:-1])
    note = f"{count} runs on fewer training pictures are told by number of pictures, and in nothing else."
    return replace(parts[-1], notes=(*sweep.notes, note)), parts[:-1]


def compare_data_sizes(
    parts: list[Sweep], whole: Sweep, comparison: Comparison, rng: np.random.Generator
) -> list[DataSizeResult]:
    """Return the sizes, the smallest first, the whole at the end; empty where there is one size only.

    Args:
        parts: as `largest` has them.
        comparison: of `whole`.
    """
    told = [*((part, compare(part, comparison.target, rng)) for part in parts), (whole, comparison)]
    return [_size(sweep, of_it) for sweep, of_it in told] if parts else []


def _size(sweep: Sweep, comparison: Comparison) -> DataSizeResult:
    finished = sweep.finished
    counts = pd.to_numeric(finished[PICTURES], errors="coerce").dropna() if PICTURES in finished else pd.Series([])
    return DataSizeResult(
        share=float(finished[SHARE].fillna(1.0).iloc[0]),
        pictures=int(counts.median()) if len(counts) else None,
        comparison=comparison,
        result=decide(comparison),
    )


def data_size_record(size: DataSizeResult) -> dict[str, Any]:
    """Return a size as people read it, in plain values: its row in the report, and in report.json."""
    use = recommended(size.comparison, size.result)
    rows = size.comparison.strategies
    row = rows[rows["strategy"] == use].iloc[0]
    return {
        "share": size.share,
        "pictures": size.pictures,
        "verdict": size.result.verdict,
        "use": use,
        "recipe": str(row["recipe"]),
        "accuracy": percent(row["test_accuracy_mean"]),
        "interval": format_interval(row["test_accuracy_low"], row["test_accuracy_high"]),
        "costs": train_time_text(row),
        "sure": confidence_text(size.result, use),
    }


def data_size_frame(sizes: list[DataSizeResult]) -> pd.DataFrame:
    """Return one row a size and strategy: pictures, strategy, mean test accuracy and its interval.

    Sizes of which the number of pictures is not known are left out.
    """
    names = {"test_accuracy_mean": "accuracy", "test_accuracy_low": "low", "test_accuracy_high": "high"}
    tables = [
        size.comparison.strategies[["strategy", *names]].rename(columns=names).assign(pictures=size.pictures)
        for size in sizes
        if size.pictures is not None
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["strategy", "pictures"])

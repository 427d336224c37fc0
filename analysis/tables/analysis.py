"""All results of a sweep, computed once and handed to every figure and every file of its report."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.sources.sweep import Sweep
from analysis.tables.claims import CheckedClaims
from analysis.tables.comparison import SEED, Comparison, chosen_runs
from analysis.tables.data_size import DataSizeResult
from analysis.tables.recipes import replicate_kind
from analysis.tables.verdict import MARGIN, Verdict

TARGET = 0.8  # val accuracy: the default of --target


@dataclass(frozen=True)
class Options:
    """What a user may ask of an analysis.

    Attributes:
        target: val accuracy; the report tells how fast runs reached it.
        margin: a loss of accuracy that is accepted for a lower cost, a fraction.
        by: fields that make arms; empty to find them.
        tuned: fields beside the rates that val tunes within an arm.
        all_test: whether CSV files show test results of recipes that val did not choose.
        seed: of the random numbers behind the importance of settings.
    """

    target: float = TARGET
    margin: float = MARGIN
    by: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    all_test: bool = False
    seed: int = SEED


DEFAULTS = Options()


@dataclass(frozen=True)
class Analysis:
    """The results of a sweep.

    Attributes:
        all_runs: the sweep with its runs on every training-set size.
        sweep: its runs on the largest training set, which everything below but `sizes` is about.
        best: the candidate's run with the highest val accuracy.
        predictions: the test predictions of that run, or None where it has none.
        data: see `data_facts`.
        claims: those that the sweep file names, checked.
        sizes: the results by training-set size; empty where the sweep has only one.
        notes: caveats, one sentence each.
        options: what was asked for.
    """

    all_runs: Sweep
    sweep: Sweep
    comparison: Comparison
    verdict: Verdict
    best: "pd.Series[Any]"
    predictions: pd.DataFrame | None
    data: dict[str, Any]
    claims: CheckedClaims
    sizes: list[DataSizeResult]
    notes: tuple[str, ...]
    options: Options

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """The finished runs of the chosen recipes."""
        return chosen_runs(self.sweep, self.comparison)

    @cached_property
    def replicate(self) -> str:
        """What the runs of one recipe differ in: "seed", "fold" or, where they differ in both, "run"."""
        return replicate_kind(self.comparison.recipes["over"])

    @property
    def best_dir(self) -> Path:
        """The directory of the best run."""
        return Path(self.best["path"])

    def with_notes(self, notes: Iterable[str]) -> "Analysis":
        """Return the same results with more notes."""
        return replace(self, notes=(*self.notes, *notes))

"""Epochs and seconds to a target, and the share of runs that reach it, with runs that never do."""

import numpy as np
import pandas as pd

from analysis.stats.tests import wilson
from analysis.tables.target import reached_curve, share_by, times_to_target


def test_a_curve_worked_out_on_paper() -> None:
    """Reached after 2, 4 and 5 epochs, ended after 3 without: 1, 2 and 3 of 4 runs."""
    curve = reached_curve(pd.Series([2, 3, 4, 5]), pd.Series([True, False, True, True]))
    assert [share_by(curve, epoch)[0] for epoch in (1, 2, 3, 4, 5, 9)] == [0, 0.25, 0.25, 0.5, 0.75, 0.75]
    assert curve.until == 5


def test_runs_that_never_reach_it_count() -> None:
    """Two of four ended at once: leaving them out would say that all reach it by epoch 3."""
    curve = reached_curve(pd.Series([1, 1, 2, 3]), pd.Series([False, False, True, True]))
    assert share_by(curve, 3) == (0.5, *wilson(2, 4))
    nobody = reached_curve(pd.Series([4.0, 4.0]), pd.Series([False, False]))
    assert share_by(nobody, 4) == (0, *wilson(0, 2))


def test_an_interval_holds_its_share() -> None:
    """The ends of the interval lie on either side of what was found, inside [0, 1]."""
    curve = reached_curve(pd.Series(range(1, 13)), pd.Series([True] * 8 + [False] * 4))
    for epoch in range(1, 9):
        share, low, high = share_by(curve, epoch)
        assert 0 <= low <= share <= high <= 1


def test_times_leave_out_filling_caches() -> None:
    """Run a: 10 s an epoch of which 6 fill the cache in the first: there after 4 + 10 s; b never is, and is kept."""
    runs = pd.DataFrame({"run": ["a", "b", "other"], "arm": ["head", "full", "full"]}).iloc[:2]
    epochs = pd.DataFrame(
        [
            {"run": run, "epoch": epoch, "val/accuracy": score, "epoch_seconds": 10.0, "seconds/cache": cache}
            for run, epoch, score, cache in (
                ("a", 1, 0.5, 6.0), ("a", 2, 0.8, 0.0), ("a", 3, 0.7, 0.0),
                ("b", 1, 0.1, np.nan), ("b", 2, 0.2, np.nan), ("other", 1, 0.9, 0.0),
            )
        ]
    )  # fmt: skip
    times = times_to_target(runs, epochs.sample(frac=1, random_state=0), 0.8)
    assert times.to_dict("list") == {
        "run": ["a", "b"],
        "arm": ["head", "full"],
        "reached": [True, False],
        "epochs": [2, 2],
        "seconds": [14.0, 20.0],
    }

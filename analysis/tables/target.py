"""Time until val accuracy reaches a target, and the share of runs that have reached it by an epoch.

Runs that never reach it count in every share: without them a recipe would look faster than it is.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.tests import wilson

RECORDED_TARGET = 0.8  # whose epoch each run records itself


@dataclass(frozen=True)
class ReachedCurve:
    """The share of runs that have reached the target, a step function of the epoch.

    Attributes:
        epochs: (steps,) rising from 0; a share holds from there on.
        share: (steps,) in [0, 1].
        low, high: (steps,) ends of its 95% Wilson interval.
        until: the epoch at which the curve ends: the last that a run took to the target or to its end.
    """

    epochs: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    until: float


def epochs_to_target(finished: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.Series:
    """Return for each finished run the epochs until val accuracy reached `target`; infinity if it never did."""
    if target == RECORDED_TARGET:
        return finished["epochs_to_80"].fillna(np.inf)
    reached = epochs[epochs["val/accuracy"] >= target].groupby("run")["epoch"].min()
    return finished["run"].map(reached).astype(float).fillna(np.inf)


def times_to_target(runs: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return one row per run: run, strategy, reached (bool), and epochs and seconds until the target or its end.

    Seconds leave out filling caches: which run fills them is chance.
    """
    columns = ["run", "arm", "reached", "epochs", "seconds"]
    rows = epochs.merge(runs[["run", "arm"]], on="run").sort_values(["run", "epoch"])
    if rows.empty:
        return pd.DataFrame(columns=columns)
    own = rows["epoch_seconds"] - rows["seconds/cache"].fillna(0.0)
    rows = rows.assign(seconds=own.groupby(rows["run"]).cumsum(), epochs=rows["epoch"])
    firsts = rows[rows["val/accuracy"] >= target].groupby("run").head(1).assign(reached=True)
    ends = rows.groupby("run").tail(1).assign(reached=False)
    times = pd.concat([firsts, ends]).drop_duplicates("run")
    return times.sort_values("run", ignore_index=True)[columns]


def reached_curve(epochs: "pd.Series[Any]", reached: "pd.Series[Any]") -> ReachedCurve:
    """Return the empirical share of runs that have reached the target by each epoch.

    Args:
        epochs: (runs,) until the target, or until the run ended without it.
        reached: (runs,) which of the two.
    """
    times = np.sort(epochs[reached.astype(bool)].to_numpy(float))
    steps = np.concatenate([[0.0], np.unique(times)])
    counts = np.searchsorted(times, steps, side="right")
    bounds = np.array([wilson(int(count), len(epochs)) for count in counts])
    return ReachedCurve(steps, counts / len(epochs), bounds[:, 0], bounds[:, 1], float(epochs.max()))


def share_by(curve: ReachedCurve, epoch: float) -> tuple[float, float, float]:
    """Return the share of runs that have reached the target by this epoch, and the ends of its interval."""
    step = int(np.searchsorted(curve.epochs, epoch, side="right")) - 1
    return float(curve.share[step]), float(curve.low[step]), float(curve.high[step])

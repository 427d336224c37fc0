"""How long until a target accuracy is reached, with the runs that never reached it kept: Kaplan and Meier's curve.

Leaving those runs out, or counting their last epoch as a success, would make a recipe look quicker than it is.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import CensoredData, ecdf

from analysis.stats.tests import LEVEL


@dataclass(frozen=True)
class ReachedCurve:
    """The share of runs that have reached the target, as a step function.

    Attributes:
        at: (steps,) rising, in the unit of the durations; the share holds from there on.
        share: (steps,) in [0, 1].
        low, high: (steps,) the ends of its 95% interval (log-log, Kalbfleisch and Prentice); NaN where there is none.
        until: the longest duration, where the curve ends.
    """

    at: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    until: float


def times_to_target(runs: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return one row a run: run, strategy, reached (bool), epochs and seconds up to the target, or to its end.

    Seconds are of the run's own epochs, filling caches left out (see figures: which run fills them is chance).
    """
    columns = ["run", "strategy", "reached", "epochs", "seconds"]
    rows = epochs.merge(runs[["run", "strategy"]], on="run").sort_values(["run", "epoch"])
    if rows.empty:
        return pd.DataFrame(columns=columns)
    own = rows["epoch_seconds"] - rows["seconds/cache"].fillna(0.0)
    rows = rows.assign(passed=own.groupby(rows["run"]).cumsum(), there=rows["val/accuracy"] >= target)
    ends = rows.groupby("run").tail(1).assign(reached=False)
    firsts = rows[rows["there"]].groupby("run").head(1).assign(reached=True)
    told = pd.concat([firsts, ends]).drop_duplicates("run").rename(columns={"epoch": "epochs", "passed": "seconds"})
    return told.sort_values("run", ignore_index=True)[columns]


def kaplan_meier(durations: "pd.Series[Any]", reached: "pd.Series[Any]") -> ReachedCurve:
    """Return the share that has reached the target by each time (Kaplan and Meier, JASA 1958; one minus survival).

    Args:
        durations: (runs,) until the target, or until the run ended without it.
        reached: (runs,) which of the two.
    """
    there = reached.to_numpy(dtype=bool)
    times = durations.to_numpy(dtype=float)
    curve = ecdf(CensoredData(uncensored=times[there], right=times[~there]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all or none have reached it, there is no interval
        bounds = curve.cdf.confidence_interval(LEVEL, method="log-log") if there.any() else None
    at, share = np.asarray(curve.cdf.quantiles, float), np.asarray(curve.cdf.probabilities, float)
    empty = np.full(len(at), np.nan)
    low = np.asarray(bounds.low.probabilities, float) if bounds else empty
    high = np.asarray(bounds.high.probabilities, float) if bounds else empty
    return ReachedCurve(at, share, low, high, float(times.max()))


def share_by(curve: ReachedCurve, time: float) -> tuple[float, float, float]:
    """Return the share that has reached the target by `time`, and its interval (NaN where there is none)."""
    step = int(np.searchsorted(curve.at, time, side="right")) - 1
    return (0.0, np.nan, np.nan) if step < 0 else (curve.share[step], curve.low[step], curve.high[step])

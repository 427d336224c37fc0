"""What a sweep is expected to take: how that is told, kept beside its runs, and compared with what it took."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.sweep.display import console, duration
from finetune.system import documents

FORECAST = "forecast.json"  # beside the run directories: the outlook of the newest start, and what came of it

# Counted on a loopback server by tests/test_online.py; and one that sends a run's rows every 15 s (see README.md).
WANDB_CALLS_A_RUN, WANDB_SECONDS = 25, 15.0


@dataclass(frozen=True)
class StrategyForecast:
    """What the runs of one strategy take.

    Attributes:
        seconds: of all of them, one after another, with what they fill of the caches.
        epoch_seconds: the mean over their epochs.
    """

    runs: int
    seconds: float
    epoch_seconds: float


@dataclass(frozen=True)
class SweepForecast:
    """What the runs that are to do are expected to take.

    Attributes:
        seconds: wall time, with `agents` runs side by side and `threads` threads each.
        device: that they compute on: cpu, cuda or mps.
        run_seconds: id -> seconds of each run that is known.
        unknown: runs that a search has yet to choose; they count as the mean of draws from its space.
        strategies: name -> its runs.
        cache_seconds: what filling caches takes of all this.
        run_bytes: the disk that run directories take, of `free_bytes` that are free.
        caches_beside: whether caches take of the same disk.
        cache_bytes: that caches take, of `cache_budget` bytes.
        refused_bytes: that they have no room for.
        most: whether runs may end earlier.
    """

    seconds: float
    agents: int
    threads: int
    device: str
    run_seconds: Mapping[str, float]
    unknown: int
    strategies: Mapping[str, StrategyForecast]
    cache_seconds: float
    run_bytes: int
    free_bytes: int
    cache_bytes: int
    cache_budget: int
    refused_bytes: int
    most: bool
    caches_beside: bool = True

    @property
    def runs(self) -> int:
        """How many runs there are to do."""
        return len(self.run_seconds) + self.unknown

    @property
    def epoch_seconds(self) -> dict[str, float]:
        """Strategy -> seconds an epoch."""
        return {name: strategy.epoch_seconds for name, strategy in self.strategies.items()}

    @property
    def lacking_bytes(self) -> int:
        """What the disk of the run directories lacks; 0 where all fits."""
        return max(0, self.run_bytes + (self.cache_bytes if self.caches_beside else 0) - self.free_bytes)


def lines(outlook: SweepForecast) -> list[str]:
    """Return what is told of it before a sweep begins."""
    work = sum(share.seconds for share in outlook.strategies.values())
    agents = "1 agent" if outlook.agents == 1 else f"{outlook.agents} agents"
    threads = "1 thread" if outlook.threads == 1 else f"{outlook.threads} threads"
    each = " each" if outlook.agents > 1 else ""
    on = f"{agents} with {threads}{each}" if outlook.device == "cpu" else f"{agents} on {outlook.device}"
    guess = f"; {outlook.unknown} runs are yet to be chosen, and taken for the mean" if outlook.unknown else ""
    told = [
        f"time: {_at_most(outlook)}{duration(outlook.seconds)} for {_runs(outlook.runs)} (probed here: {on}{guess})"
    ]
    width = max(map(len, outlook.strategies), default=0)
    for name, share in sorted(outlook.strategies.items(), key=lambda item: -item[1].seconds):
        told.append(
            f"  {name:<{width}}  {_runs(share.runs)}, {duration(share.seconds / share.runs)} each, "
            f"{duration(share.seconds)} together, {share.seconds / work:.0%}"
        )
    if outlook.cache_seconds:
        told.append(f"  of this, {duration(outlook.cache_seconds)} to fill caches, once for all runs")
    told.append(
        f"disk: {_size(outlook.run_bytes)} in run directories ({_size(outlook.free_bytes)} free); caches "
        f"{_size(outlook.cache_bytes)} of {_size(outlook.cache_budget)} (FINETUNE_CACHE_GB)"
    )
    if outlook.refused_bytes:
        told.append(f"  no room for {_size(outlook.refused_bytes)} more in caches: that is computed in each epoch")
    if outlook.lacking_bytes:
        told.append(
            f"  the disk will be full before the sweep is done, {_size(outlook.lacking_bytes)} are lacking: make room "
            "(make gc), keep fewer weights (--keep best or none), or run a part of it (--count)"
        )
    calls = round(WANDB_CALLS_A_RUN * outlook.runs + work / WANDB_SECONDS)
    told.append(f"calls to W&B: none; run as a sweep on W&B, at most {calls:,} in all")
    return told


def store(folder: Path, outlook: SweepForecast) -> None:
    """Keep an outlook beside the run directories, if that can be written."""
    _write(folder, outlook, None)


def compare(
    folder: Path, outlook: SweepForecast, wall_seconds: float, run_seconds: Mapping[str, float], race: bool = False
) -> None:
    """Print what the sweep took beside what was forecast, and keep that.

    Wall times are compared if this agent has finished all that was forecast. If not, because it was stopped, runs
    failed or others took part, the runs that it has finished are, each for itself.

    Args:
        wall_seconds: of this agent, from its first run's start to its last one's end.
        run_seconds: id -> seconds of the runs that this agent has finished.
        race: whether the forecast reckoned with as many runs, but could not know which.
    """
    known = {name: seconds for name, seconds in run_seconds.items() if name in outlook.run_seconds}
    whole = len(run_seconds) == outlook.runs and (race or len(known) == len(outlook.run_seconds))
    if whole:
        expected, took, of = outlook.seconds, wall_seconds, ""
    else:
        expected, took = sum(outlook.run_seconds[name] for name in known), sum(known.values())
        of = f" one after another for the {_runs(len(known))} that this agent finished"
    comparison = ""
    if whole or known:
        difference = f"{took / expected - 1:+.0%}"
        comparison = f"forecast {_at_most(outlook)}{duration(expected)}{of}, took {duration(took)} ({difference})"
        console.print(comparison)
    fields = {"whole": whole, "forecast_seconds": expected, "seconds": took, "comparison": comparison}
    _write(folder, outlook, {**fields, "wall_seconds": wall_seconds, "run_seconds": dict(run_seconds)})


def _write(folder: Path, outlook: SweepForecast, took: dict[str, Any] | None) -> None:
    with contextlib.suppress(OSError):  # a full disk, say: the sweep can do without
        documents.write_json(folder / FORECAST, {"forecast": dataclasses.asdict(outlook), "took": took})


def show(outlook: SweepForecast) -> None:
    """Print what is told of it before a sweep begins."""
    for line in lines(outlook):
        console.print(line)


def _at_most(outlook: SweepForecast) -> str:
    return "at most " if outlook.most else ""


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _size(count: float) -> str:
    """Return bytes in words, such as `3.2 GB` (1e9 bytes)."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

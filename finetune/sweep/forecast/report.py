"""The forecast of a sweep: printed, stored beside the runs, and compared with their actual time."""

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.sweep.display import console, count_noun, duration
from finetune.sweep.power import detectable_sentence
from finetune.system import documents
from finetune.system.atomic import format_bytes

FORECAST = "forecast.json"  # beside the run directories: the forecast at the newest start, and the comparison

# Counted on a server on this machine by tests/online; a server that sends a run's rows every 15 s (see docs/wandb.md).
WANDB_CALLS_PER_RUN, WANDB_SECONDS = 25, 15.0


@dataclass(frozen=True)
class StrategyForecast:
    """The runs of one strategy."""

    runs: int
    seconds: float  # of all runs, one after another, once the caches are filled
    epoch_seconds: float  # mean over their epochs


@dataclass(frozen=True)
class SweepForecast:
    """The expected time and disk space of pending runs; its fields are the keys of forecast.json."""

    seconds: float  # wall time, filling caches included
    agents: int  # runs side by side
    threads: int  # of each
    device: str  # cpu, cuda or mps
    run_seconds: Mapping[str, float]  # id -> seconds of each known run
    unknown: int  # runs that a search has yet to choose; each counts as a draw from its space
    strategies: Mapping[str, StrategyForecast]
    cache_seconds: float  # for filling the caches
    run_bytes: int  # of run directories
    free_bytes: int  # on their disk
    cache_bytes: int  # at most `cache_budget`
    cache_budget: int
    refused_bytes: int  # of cache entries for which there is no room
    most: bool  # whether runs may take less, such as those that may end early
    runs_per_recipe: int = 0  # of the recipe with most runs, for the strategy with fewest; 0 if unknown
    test_images: int = 0  # of the smallest test set; 0 if unknown
    caches_beside: bool = True  # whether the caches are on the disk of the run directories

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.run_seconds) + self.unknown

    @property
    def epoch_seconds(self) -> dict[str, float]:
        """Strategy -> seconds an epoch."""
        return {name: strategy.epoch_seconds for name, strategy in self.strategies.items()}

    @property
    def lacking_bytes(self) -> int:
        """Disk space that is lacking; 0 if there is enough."""
        return max(0, self.run_bytes + (self.cache_bytes if self.caches_beside else 0) - self.free_bytes)


def show(forecast: SweepForecast) -> None:
    """Print a forecast."""
    for line in lines(forecast):
        console.print(line)


def lines(forecast: SweepForecast) -> list[str]:
    """Return the lines that are printed before a sweep starts."""
    runs, seconds = count_noun(forecast.runs, "run"), duration(forecast.seconds)
    caches = f"{format_bytes(forecast.cache_bytes)} of {format_bytes(forecast.cache_budget)} (FINETUNE_CACHE_GB)"
    disk = f"{format_bytes(forecast.run_bytes)} in run directories ({format_bytes(forecast.free_bytes)} free)"
    work = sum(strategy.seconds for strategy in forecast.strategies.values())
    calls = round(WANDB_CALLS_PER_RUN * forecast.runs + work / WANDB_SECONDS)
    text = [f"time: {_at_most(forecast)}{seconds} for {runs} (probed here: {_basis(forecast)})"]
    width = max(map(len, forecast.strategies), default=0)
    for name, strategy in sorted(forecast.strategies.items(), key=lambda item: -item[1].seconds):
        each, together = duration(strategy.seconds / strategy.runs), duration(strategy.seconds)
        share = f"{strategy.seconds / work:.0%}"
        text.append(f"  {name:<{width}}  {count_noun(strategy.runs, 'run')}, {each} each, {together} together, {share}")
    if forecast.cache_seconds:
        text.append(f"  of this, {duration(forecast.cache_seconds)} to fill caches, once for all runs")
    return [
        *text,
        f"disk: {disk}; caches {caches}",
        *_warnings(forecast),
        *([detectable_sentence(forecast.runs_per_recipe, forecast.test_images)] if forecast.test_images else []),
        f"calls to W&B: none; run as a sweep on W&B, at most {calls:,} in all",
    ]


def _basis(forecast: SweepForecast) -> str:
    agents = count_noun(forecast.agents, "agent")
    threads = count_noun(forecast.threads, "thread") + (" each" if forecast.agents > 1 else "")
    draws = f"; {forecast.unknown} runs are yet to be chosen, and taken for the mean" if forecast.unknown else ""
    return (f"{agents} with {threads}" if forecast.device == "cpu" else f"{agents} on {forecast.device}") + draws


def _warnings(forecast: SweepForecast) -> list[str]:
    warnings = []
    if forecast.refused_bytes:
        refused = format_bytes(forecast.refused_bytes)
        warnings.append(f"  no room for {refused} more in caches: these activations are computed in each epoch")
    if forecast.lacking_bytes:
        warnings.append(
            f"  the disk will be full before the sweep is done, {format_bytes(forecast.lacking_bytes)} are lacking: "
            "make room (make gc), keep fewer weights (--keep best or none), or run a part of it (--count)"
        )
    return warnings


def _at_most(forecast: SweepForecast) -> str:
    return "at most " if forecast.most else ""


def store(folder: Path, forecast: SweepForecast, comparison: dict[str, Any] | None = None) -> None:
    """Write a forecast, and the comparison with what it took, into a sweep's folder, unless the disk is full."""
    with contextlib.suppress(OSError):
        documents.write_json(folder / FORECAST, {"forecast": dataclasses.asdict(forecast), "took": comparison})


def compare(
    folder: Path, forecast: SweepForecast, wall_seconds: float, run_seconds: Mapping[str, float], race: bool = False
) -> None:
    """Print the forecast beside what the runs took, and store both.

    Wall times are compared if this agent has finished all forecast runs. Otherwise (it was stopped, runs failed, other
    agents took part), the seconds of the runs that it has finished are compared.

    Args:
        wall_seconds: from the start of this agent's first run to the end of its last one.
        run_seconds: id -> seconds of the runs that this agent has finished.
        race: whether the forecast knew how many runs there would be, but not which.
    """
    known = {name: seconds for name, seconds in run_seconds.items() if name in forecast.run_seconds}
    is_complete = len(run_seconds) == forecast.runs and (race or len(known) == len(forecast.run_seconds))
    if is_complete:
        expected, actual, subject = forecast.seconds, wall_seconds, ""
    else:
        expected, actual = sum(forecast.run_seconds[name] for name in known), sum(known.values())
        subject = f" one after another for the {count_noun(len(known), 'run')} that this agent finished"
    comparison = ""
    if is_complete or known:
        durations = f"{duration(expected)}{subject}, took {duration(actual)} ({actual / expected - 1:+.0%})"
        comparison = f"forecast {_at_most(forecast)}{durations}"
        console.print(comparison)
    took = {"whole": is_complete, "forecast_seconds": expected, "seconds": actual, "comparison": comparison}
    store(folder, forecast, {**took, "wall_seconds": wall_seconds, "run_seconds": dict(run_seconds)})

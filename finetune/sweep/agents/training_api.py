"""The training code that an agent calls, behind an interface that tests can replace; an agent's options."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from finetune.config import Config
from finetune.sweep.forecast.report import SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan


@dataclass(frozen=True)
class AgentOptions:
    """Options of an agent.

    Attributes:
        agents: number of runs side by side.
        count: maximum number of runs to start, None for no limit.
        retry_failed: start failed runs again.
        max_failures: number of failures in a row after which no more runs are started, as they probably have one cause;
            0 for no limit.
    """

    agents: int = 1
    count: int | None = None
    retry_failed: bool = False
    max_failures: int = 5


class TrainingApi(NamedTuple):
    """The functions of the training code that agents call.

    Attributes:
        run: "module:function" called as (config, run_dir, on_progress=..., interrupted=..., peers=...) in a process of
            its own.
        preload: modules that the fork server imports once for all runs.
        fingerprint_inputs: config -> (data fingerprint, weights hash).
        check_inputs: checks data and weights of these configs, before runs start side by side.
        fetch_inputs: (configs, may_download) -> downloads missing data and weights; without `may_download`, raises
            NotDownloadedError if a data set is missing.
        forecast: (plan, runs to start, number of runs that a search will add, runs side by side) -> forecast, None if
            there is none; see workload.py.
    """

    run: str
    preload: list[str]
    fingerprint_inputs: Callable[[Config], tuple[str, str]]
    check_inputs: Callable[[Iterable[Config]], None]
    fetch_inputs: Callable[[Iterable[Config], bool], None] = lambda *_: None
    forecast: Callable[[SweepPlan, Sequence[PlannedRun], int, int], SweepForecast | None] = lambda *_: None


# These import torch when they are called: a sweep file with a fault should not wait for it.


def _fingerprint_inputs(config: Config) -> tuple[str, str]:
    from finetune.run import preflight

    return preflight.fingerprint_inputs(config)


def _check_inputs(configs: Iterable[Config]) -> None:
    from finetune.run import fetch

    fetch.prepare_weights(configs)


def _fetch_inputs(configs: Iterable[Config], may_download: bool) -> None:
    from finetune.run import fetch

    if may_download:
        fetch.fetch_missing(configs)
    else:
        fetch.require_data(configs)


def _forecast(plan: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int) -> SweepForecast | None:
    from finetune.sweep.forecast import workload

    return workload.forecast_sweep(plan, runs, unknown, agents)


# The modules that a run imports, and agent.py, which is the main module of its process.
PRELOAD = ["finetune.run.run", "finetune.sweep.agents.local_agent"]
REAL = TrainingApi("finetune.run.run:run", PRELOAD, _fingerprint_inputs, _check_inputs, _fetch_inputs, _forecast)

"""What agents call of the code that trains, in one place, so that they can be tested without it."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from finetune.config import Config
from finetune.sweep.forecast.report import SweepForecast
from finetune.sweep.plan import PlannedRun, SweepPlan

Say = Callable[[str], None]


class TrainingApi(NamedTuple):
    """What the agent calls; tests put small stand-ins in its place.

    Attributes:
        run: "module:function" that runs (config, run_dir, on_progress=..., interrupted=..., peers=...) in a
            process of its own.
        preload: modules that the fork server imports once for all runs.
        identify: config -> (data fingerprint, weights hash).
        bring: (configs, fetch) -> has what they need and can be fetched on this machine; without `fetch` it refuses to
            go on where the pictures are missing.
        prepare: has data and weights of these configs on this machine before runs start side by side.
        expect: (plan, runs to do, how many more a search will choose, agents, say) -> what they will take, see
            workload.py; None where it can't be told.
    """

    run: str
    preload: list[str]
    identify: Callable[[Config], tuple[str, str]]
    prepare: Callable[[Iterable[Config]], None]
    bring: Callable[[Iterable[Config], bool], None] = lambda *_: None
    expect: Callable[[SweepPlan, Sequence[PlannedRun], int, int, Say], SweepForecast | None] = lambda *_: None


def _identify(config: Config) -> tuple[str, str]:
    from finetune.run import preflight  # imports torch, which a sweep file with a fault should not wait for

    return preflight.fingerprint_inputs(config)


def _prepare(configs: Iterable[Config]) -> None:
    from finetune.run import preflight

    preflight.check_inputs(configs)


def _bring(configs: Iterable[Config], may_fetch: bool) -> None:
    from finetune.run import fetch

    if may_fetch:
        fetch.fetch_missing(configs)
    else:
        fetch.require_data(configs)


def _expect(todo: SweepPlan, runs: Sequence[PlannedRun], unknown: int, agents: int, say: Say) -> SweepForecast | None:
    from finetune.sweep.forecast import workload

    return workload.forecast_sweep(todo, runs, unknown, agents, say)


# Beside the run's own modules: what agent.py imports.
PRELOAD = ["finetune.run.run", "finetune.sweep.agents.local_agent"]
REAL = TrainingApi("finetune.run.run:run", PRELOAD, _identify, _prepare, _bring, _expect)

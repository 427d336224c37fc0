"""What agents call of the code that trains, in one place, so that they can be tested without it."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from finetune.config import Config


class Code(NamedTuple):
    """What the agent calls; tests put small stand-ins in its place.

    Attributes:
        run: "module:function" that runs (config, run_dir, on_progress=..., log=..., interrupted=...) in a process of
            its own.
        preload: modules that the fork server imports once for all runs.
        identify: config -> (data fingerprint, weights hash).
        prepare: has data and weights of these configs on this machine before runs start side by side.
    """

    run: str
    preload: list[str]
    identify: Callable[[Config], tuple[str, str]]
    prepare: Callable[[Iterable[Config]], None]


def _identify(config: Config) -> tuple[str, str]:
    from finetune import preflight  # imports torch, which a sweep file with a fault should not wait for

    return preflight.identify(config)


def _prepare(configs: Iterable[Config]) -> None:
    from finetune import preflight

    preflight.prepare(configs)


# Beside the run's own modules: what it imports late, which would cost every run a second, and what agent.py imports.
PRELOAD = ["finetune.run", "sklearn.metrics", "finetune.agents.offline"]
REAL = Code("finetune.run:run", PRELOAD, _identify, _prepare)

"""Scenarios: stories with a W&B server that take long, most of it waiting. Those of a test file go on side by side.

Each has a server and a folder of its own. A test marked `@pytest.mark.scenario(name)` looks at what came of one, by the
fixture `outcome`, which a test file imports with `outcomes`.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.online.machine import end_machines, machines_ended
from tests.support.wandb_server.server import Server, serve

AT_ONCE = 6

Scenario = Callable[[Server, Path], Any]
SCENARIOS: dict[str, Scenario] = {}
LONG = ("outages", "signals", "two_agents", "real", "failures")  # are started first


def scenario(function: Scenario) -> Scenario:
    """Have this function run beside the others."""
    SCENARIOS[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Future]]:
    """Start the scenarios that the selected tests ask for; each gets a server and a folder."""
    items = [item for item in request.session.items if item.path == request.path]
    marks = [item.get_closest_marker("scenario") for item in items]
    wanted = {mark.args[0] for mark in marks if mark is not None}
    names = [name for name in dict.fromkeys([*LONG, *SCENARIOS]) if name in wanted]

    def play(name: str, folder: Path) -> Any:
        with serve() as server, machines_ended(server):
            outcome = SCENARIOS[name](server, folder)
            assert server.errors == []  # nothing was asked that it does not know
            return outcome

    folders = {name: tmp_path_factory.mktemp(name) for name in names}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        played = {name: pool.submit(play, name, folder) for name, folder in folders.items()}
        try:
            yield played
        finally:  # the tests have all that they wait for, or are interrupted, and nobody will look at the rest
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in played.values()):
                end_machines()
                time.sleep(0.1)


@pytest.fixture
def outcome(outcomes: dict[str, Future], request: pytest.FixtureRequest) -> Any:
    """Return what the scenario of this test came to."""
    return outcomes[request.node.get_closest_marker("scenario").args[0]].result(600)

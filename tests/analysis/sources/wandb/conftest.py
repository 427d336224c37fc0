"""A loopback W&B server for the tests of fetching, and a client that is logged in there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from analysis.sources.wandb import errors, rate_limit
from tests.support.wandb_server.server import Server, serve


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Serve for all tests here; each has a sweep of its own."""
    with serve() as server:
        yield server
        wandb.teardown()


@pytest.fixture(autouse=True)
def _logged_in(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the client of this process talk to the loopback server, as fast as it can."""
    for name, value in server.environment(tmp_path / "home").items():
        if name.startswith("WANDB") or name in ("HOME", "NETRC"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv(errors.CALLS_VARIABLE, "100000")
    monkeypatch.setattr(rate_limit, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    server.heal()

"""The loopback W&B backend for a test file, and scripts that use the real client with it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.wandb_server.server import Server, serve
from tests.support.wandb_server.store import Run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Serve for all tests of this file; whatever could not be answered makes them fail."""
    with serve() as server:
        yield server
        assert server.errors == []


@pytest.fixture
def python(server: Server, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs a script with the real client and returns what it printed last, as JSON."""

    def run(script: str, **environment: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", script], env={**server.environment(tmp_path / "home"), **environment}, cwd=tmp_path,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def steps(run: Run) -> list[int]:
    """Return the steps of the rows of a run."""
    return [row["_step"] for row in run.history]

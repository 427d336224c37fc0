"""An agent whose fork server dies, or whose machine has no process left: runs under way end, and nothing is lost."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.sweep.agents import run_process
from tests.support.agent_processes import Place, write_sweep
from tests.support.processes import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A folder with a sweep of four seeds."""
    write_sweep(tmp_path)
    return Place(tmp_path)


def _fork_servers(place: Place) -> list[psutil.Process]:
    return [process for process in place.processes() if any("forkserver" in word for word in process.cmdline())
            and os.getsid(process.pid) != process.pid]  # fmt: skip


def test_a_machine_without_a_process_left_ends_the_agent_with_a_message(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run under way ends by itself, no other is started, and the same command goes on later."""
    true, started = run_process.start, []

    def start(*given: Any, **named: Any) -> run_process.RunProcess:
        if started:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        started.append(given)
        return true(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(run_process, "start", start)
        code, output = place.run("seeds.yaml", "--agents", "2")
    assert code == 1, output
    assert "Traceback" not in output
    assert output.count("no process can be started for ") == 1
    assert "check `ulimit -u`" in output
    assert sorted(place.states()) == ["finished"]
    assert place.run("seeds.yaml")[0] == 0
    assert place.states() == ["finished"] * 4


def test_an_agent_goes_on_without_its_fork_server_and_starts_another(place: Place) -> None:
    """The run that goes on ends by itself, once; the next ones come from a new server; none is left, none failed."""
    agent = place.start("seeds.yaml", seconds=0.5)
    wait_until(lambda: len(place.epochs()) == 1)
    (server,) = _fork_servers(place)
    server.kill()
    code, output = agent.wait()
    assert code == 0, output
    assert "Traceback" not in output
    assert place.states() == ["finished"] * 4
    assert place.starts() == [1] * 4
    assert [len(list(run.glob("claim-*.json"))) for run in place.runs()] == [1] * 4
    place.assert_empty()


def test_a_run_that_dies_with_the_fork_server_is_reported_and_left_for_the_next_time(place: Place) -> None:
    """Nobody learns its exit code; it is not taken for one of another agent's."""
    write_sweep(place.folder, seeds=2)
    agent = place.start("seeds.yaml", seconds=0.5)
    wait_until(lambda: len(place.epochs()) == 1)
    (server,) = _fork_servers(place)
    server.kill()
    os.kill(int((place.runs()[0] / "starts.txt").read_text()), signal.SIGKILL)
    code, output = agent.wait()
    assert code == 1
    assert "killed: ended without a message" in output
    assert place.run("seeds.yaml")[0] == 0
    assert place.states() == ["finished"] * 2

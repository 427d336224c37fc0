"""Jobs side by side: all are done once, in order, whatever becomes of the processes that do them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from analysis.sources import parallel
from analysis.sources.parallel import run_in_parallel, run_serially

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jobs are done one by one elsewhere")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one core does jobs one by one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def test_results_come_in_the_order_of_the_jobs_from_other_processes() -> None:
    """However long each takes; jobs see what is in memory and need not be picklable."""
    here, state = os.getpid(), {"seen": 3}

    def job(number: int) -> tuple[int, int, bool]:
        time.sleep(0.05 * (number == 0))
        return number, state["seen"], os.getpid() == here

    assert run_in_parallel([partial(job, number) for number in range(20)]) == [(n, 3, False) for n in range(20)]
    assert run_serially([partial(job, number) for number in range(3)]) == [(n, 3, True) for n in range(3)]
    assert run_in_parallel([]) == []


def test_an_error_is_given_to_the_caller_and_later_jobs_are_not_begun(tmp_path: Path) -> None:
    """As if there were one process."""

    def fail() -> None:
        raise ValueError("this one")

    def slow(number: int) -> None:
        time.sleep(0.02)
        (tmp_path / str(number)).touch()

    with pytest.raises(ValueError, match="this one"):
        run_in_parallel([fail, *(partial(slow, number) for number in range(4))])
    assert not parallel.multiprocessing.active_children()


def test_a_worker_that_is_killed_takes_nothing_with_it() -> None:
    """What it had not handed in is done by this process: out of memory, say, kills the one that has most."""
    here = os.getpid()

    def deadly(number: int) -> int:
        if number == 1 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert run_in_parallel([partial(deadly, number) for number in range(6)]) == list(range(6))


@pytest.mark.parametrize("run_jobs", [run_serially, run_in_parallel])
def test_progress_is_told_as_jobs_are_done(run_jobs: Callable[..., list[Any]]) -> None:
    """Whatever watches is iterated to its end, so that a bar is taken away."""
    told: list[str] = []

    def watch(steps: list[Any]) -> Iterator[Any]:
        told.append(f"of {len(steps)}")
        for step in steps:
            yield step
            told.append("done")
        told.append("end")

    assert run_jobs([lambda: 1, lambda: 2, lambda: 3], watch) == [1, 2, 3]
    assert told == ["of 3", "done", "done", "done", "end"]


def test_large_results_that_nobody_reads_any_more_keep_no_worker() -> None:
    """An error, or a signal, while workers have more to say than a pipe holds."""
    here = os.getpid()

    def large(number: int) -> bytes:
        if number == 5 and os.getpid() == here:
            raise KeyboardInterrupt
        if number == 5:
            raise ValueError
        time.sleep(0.05)
        return bytes(2**20)

    def watch(steps: list[Any]) -> Iterator[Any]:
        for step in steps:
            yield step
            if step == 1:
                raise KeyboardInterrupt

    began = time.monotonic()
    for watching in (watch, list):
        with pytest.raises(KeyboardInterrupt):
            run_in_parallel([partial(large, number) for number in range(12)], watching)
        assert not parallel.multiprocessing.active_children()
    assert time.monotonic() - began < 30


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    """They have nobody to give results to: no process may wait for ever."""
    program = (
        "import os, sys, time, pathlib\n"
        "from functools import partial\n"
        "from analysis.sources.parallel import run_in_parallel\n"
        "os.sched_getaffinity = lambda _: {0, 1}\n"
        "def job(number):\n"
        "    pathlib.Path(sys.argv[1], str(os.getpid())).touch()\n"
        "    time.sleep(0.2)\n"
        "run_in_parallel([partial(job, number) for number in range(500)])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(workers := list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    while any(Path("/proc", worker.name, "stat").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker goes on without its parent"
        time.sleep(0.05)

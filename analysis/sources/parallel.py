"""Jobs side by side on the cores of this machine, in forks of this process, which see all that it has in memory.

Neither threads nor a process pool would do: drawing holds Python's lock, what is drawn can't all be pickled, and the
workers of a pool wait for ever once the process that feeds it was killed. Here they have all their work before they
start, and end when it is done.
"""

import contextlib
import multiprocessing
import os
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

T = TypeVar("T")
OnProgress = Callable[[list[Any]], Iterable[Any]]
RunJobs = Callable[[list[Callable[[], Any]]], list[Any]]  # does jobs and returns their results, as the two below do
TICKET = struct.Struct("<I")  # the number of a job
MOST_WORKERS = 8
MOST_JOBS = 4096  # whose tickets fit into a pipe that nobody has read from yet


def one_by_one(jobs: Sequence[Callable[[], T]], watch: OnProgress = lambda steps: steps) -> list[T]:
    """Return what the jobs return, in their order.

    Args:
        watch: wraps a list as long as that of the jobs, and is iterated as they are done: to show progress.
    """
    return [job() for job in watch(list(jobs))]


def side_by_side(jobs: Sequence[Callable[[], T]], watch: OnProgress = lambda steps: steps) -> list[T]:
    """Do the same on all cores. Jobs must not rely on each other, and what they return must be picklable.

    A job that fails, or whose process dies, is done again by this process, which gives the error to the caller.
    """
    if sys.platform != "linux":  # elsewhere system libraries do not survive a fork, or there is none
        return one_by_one(jobs, watch)
    workers = min(len(os.sched_getaffinity(0)), len(jobs), MOST_WORKERS)
    if workers < 2:
        return one_by_one(jobs, watch)
    if len(jobs) > MOST_JOBS:
        raise ValueError(f"{len(jobs)} jobs are more than the {MOST_JOBS} that can be given out at once")
    tickets, pile = os.pipe()
    os.write(pile, b"".join(map(TICKET.pack, range(len(jobs)))))
    os.close(pile)
    started: list[tuple[Any, Connection]] = []
    done: dict[int, T] = {}
    try:
        for _ in range(workers):
            started.append(_start(jobs, tickets, [connection for _, connection in started]))
        steps = iter(watch(list(range(len(jobs)))))
        next(steps, None)  # shows the bar
        for number, result in _results([connection for _, connection in started]):
            done[number] = result
            next(steps, None)
        for number, job in enumerate(jobs):
            if number not in done:
                done[number] = job()
                next(steps, None)
    finally:
        os.read(tickets, TICKET.size * MOST_JOBS)  # after an error: what has not begun need not begin
        os.close(tickets)
        for process, connection in started:
            connection.close()
            process.join()
    return [done[number] for number in range(len(jobs))]


def _start(jobs: Sequence[Callable[[], Any]], tickets: int, others: list[Connection]) -> tuple[Any, Connection]:
    """Start one worker; return its process and where its results come from.

    Args:
        others: where those of the workers before it come from.
    """
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(jobs, tickets, its, [ours, *others]), daemon=True)
    with warnings.catch_warnings():
        # Python warns of forks beside threads. numpy's, which are all there are, know of forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    its.close()
    return process, ours


def _work(jobs: Sequence[Callable[[], Any]], tickets: int, its: Connection, parents: list[Connection]) -> None:
    """Do jobs until none is left, in a worker."""
    for connection in parents:  # left open, another worker could not tell that the parent reads no more
        connection.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent ends the work; a file that is begun is written
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, EOFError):  # the parent is gone
        while ticket := os.read(tickets, TICKET.size):
            (job,) = TICKET.unpack(ticket)
            try:
                result = jobs[job]()
            except Exception:  # the parent does it again, and has the error itself
                continue
            its.send((job, result))


def _results(connections: list[Connection]) -> Iterable[tuple[int, Any]]:
    """Yield what the workers send until all have ended."""
    while connections:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            try:
                yield connection.recv()
            except (EOFError, OSError):
                connections.remove(connection)

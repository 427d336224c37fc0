"""Runs jobs in parallel, in forks of this process that share its memory.

Threads would not help: drawing holds the GIL. The jobs of a process pool must be picklable, and its workers wait
forever once the process that feeds them is killed. These workers get all jobs before they start, and end by themselves.
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
RunJobs = Callable[[list[Callable[[], Any]]], list[Any]]  # runs jobs and returns their results in order
TICKET = struct.Struct("<I")  # the number of a job
MAX_WORKERS = 8
MAX_JOBS = 4096  # so many tickets fit into an unread pipe


def run_serially(jobs: Sequence[Callable[[], T]], show_progress: OnProgress = lambda steps: steps) -> list[T]:
    """Return the results of the jobs, in order.

    Args:
        show_progress: wraps a list as long as that of the jobs; the result is iterated as jobs are done.
    """
    return [job() for job in show_progress(list(jobs))]


def run_in_parallel(jobs: Sequence[Callable[[], T]], show_progress: OnProgress = lambda steps: steps) -> list[T]:
    """Like `run_serially`, on all cores. Jobs must be independent, and their results picklable.

    This process repeats a job that fails or whose worker dies, so that the caller gets the error.
    """
    if sys.platform != "linux":  # elsewhere system libraries do not survive a fork, or there is none
        return run_serially(jobs, show_progress)
    workers = min(len(os.sched_getaffinity(0)), len(jobs), MAX_WORKERS)
    if workers < 2:
        return run_serially(jobs, show_progress)
    if len(jobs) > MAX_JOBS:
        raise ValueError(f"{len(jobs)} jobs are more than the {MAX_JOBS} that fit into the pipe")
    tickets, ticket_input = os.pipe()
    os.write(ticket_input, b"".join(map(TICKET.pack, range(len(jobs)))))
    os.close(ticket_input)
    processes: list[Any] = []
    connections: list[Connection] = []
    results: dict[int, T] = {}
    try:
        for _ in range(workers):
            processes.append(_start_worker(jobs, tickets, connections))
        steps = iter(show_progress(list(range(len(jobs)))))
        next(steps, None)  # shows the bar
        for number, result in _receive(list(connections)):
            results[number] = result
            next(steps, None)
        for number, job in enumerate(jobs):
            if number not in results:
                results[number] = job()
                next(steps, None)
    finally:
        os.read(tickets, TICKET.size * MAX_JOBS)  # after an error, the other jobs are not started
        os.close(tickets)
        for connection in connections:
            connection.close()
        for process in processes:
            process.join()
    return [results[number] for number in range(len(jobs))]


def _start_worker(jobs: Sequence[Callable[[], Any]], tickets: int, connections: list[Connection]) -> Any:
    """Start one worker and return its process; append the connection that its results come from."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    connections.append(receiver)
    process = context.Process(target=_work, args=(jobs, tickets, sender, connections), daemon=True)
    with warnings.catch_warnings():
        # Python warns of forks beside threads; numpy's, the only ones, are safe in forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    return process


def _work(jobs: Sequence[Callable[[], Any]], tickets: int, sender: Connection, receivers: list[Connection]) -> None:
    """Run jobs in a worker until none is left."""
    for connection in receivers:  # an open copy would keep other workers from noticing that the parent is gone
        connection.close()
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent ends the work; files in progress are completed
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, EOFError):  # the parent is gone
        while ticket := os.read(tickets, TICKET.size):
            (job,) = TICKET.unpack(ticket)
            try:
                result = jobs[job]()
            except Exception:  # the parent repeats the job and gets the error
                continue
            sender.send((job, result))


def _receive(connections: list[Connection]) -> Iterable[tuple[int, Any]]:
    """Yield numbers and results of jobs until all workers have ended."""
    while connections:
        for connection in wait(connections):
            assert isinstance(connection, Connection)
            try:
                yield connection.recv()
            except (EOFError, OSError):
                connections.remove(connection)

"""Finding and ending the processes that a test has started, by a mark in their environment."""

import contextlib

import psutil


def marked(mark: str) -> list[psutil.Process]:
    """Return the live processes whose AGENT_MARK is `mark`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("AGENT_MARK") == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_marked(mark: str) -> None:
    """Kill the processes whose AGENT_MARK is `mark`."""
    for process in marked(mark):
        with contextlib.suppress(psutil.NoSuchProcess):  # has ended by itself just now
            process.kill()

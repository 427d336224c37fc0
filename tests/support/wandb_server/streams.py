"""What a running run sends: rows, summary, console, heartbeat, its end."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

from tests.support.wandb_server.mutations import wake
from tests.support.wandb_server.search import refresh, stop_early
from tests.support.wandb_server.store import Run, Store

STAMP = re.compile(r"^(?:ERROR )?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)? ")


def take_in(store: Store, run: Run, body: dict[str, Any]) -> dict[str, Any]:
    """Take in one request of a run's stream and return the answer.

    Lines are written by their number: a chunk that is sent twice is there once.
    """
    wake(run)
    if body.get("preempting") and run.alive:
        run.state, run.preempting = "preempting", True
    files = body.get("files") or {}
    _write(run.lines, files.get("wandb-history.jsonl"), json.loads)
    _write(run.events, files.get("wandb-events.jsonl"), json.loads)
    _write(run.console, files.get("output.log"), _console_line)
    for text in (files.get("wandb-summary.json") or {}).get("content", [])[-1:]:
        run.summary = json.loads(text)
    if body.get("complete"):
        end(run, int(body.get("exitcode") or 0))
    refresh(store)
    sweep = store.sweeps.get(run.sweep or "")
    if sweep and "wandb-history.jsonl" in files:
        stop_early(sweep)
    return {"exitcode": run.exit_code, "limits": {}, "stopped": run.stop_asked}


def _write(lines: dict[int, Any], chunk: dict[str, Any] | None, read: Callable[[str], Any]) -> None:
    if chunk:
        for index, text in enumerate(chunk.get("content") or []):
            lines[int(chunk.get("offset") or 0) + index] = read(text)


def _console_line(text: str) -> str:
    return STAMP.sub("", text).rstrip("\n")


def end(run: Run, exit_code: int) -> None:
    """End a run with an exit code."""
    run.exit_code, run.heartbeat = exit_code, time.monotonic()
    if exit_code == 0:
        run.state = "finished"
    elif run.told_to_stop:
        run.state = "killed"
    else:
        run.state = "preempted" if run.preempting else "failed"

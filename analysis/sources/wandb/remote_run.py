"""A run as a W&B server lists it, converted to the content of a run directory."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune.rundir.keys import HISTORY_KEYS, PLAN, REMOTE, SUMMARY_KEYS, SWEEP

ALIVE = ("running", "pending", "preempting")
DIRECTORY = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-])?")  # not hidden, no path
RESERVED = (REMOTE, SWEEP, PLAN, "trials", "wandb")  # other files and folders beside run directories
# Names of devices in Windows, with any suffix (learn.microsoft.com, "Naming Files, Paths").
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
REASONS = {
    "failed": ("failed", "it failed and reported no reason to W&B"),
    "killed": ("killed", "it was stopped before it could report a reason"),
    "crashed": ("killed", "W&B received nothing from it for minutes"),
    "preempted": ("killed", "its machine was taken away"),
    "finished": ("failed", "it ended without results"),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class RemoteRun:
    """A W&B run.

    Attributes:
        path: entity/project/id.
        state: W&B's: running, finished, failed, crashed, killed, pending, preempting, preempted.
        rows: number of rows of its history.
        heartbeat: time of the last sign of life, in seconds since the epoch; 0 if unknown.
        handle: wandb's object of the run.
    """

    id: str
    path: str
    state: str
    config: Row
    summary: Row
    rows: int
    heartbeat: float
    handle: Any

    @property
    def is_alive(self) -> bool:
        """Whether it may still send data."""
        return self.state in ALIVE

    @property
    def is_finished(self) -> bool:
        """Whether it was tested and sent completely. W&B calls such a run killed if the server stopped it early."""
        return not self.is_alive and self.summary.get("state") == "finished"

    @property
    def directory(self) -> str | None:
        """The name of its run directory, as on the machine that ran it; None if the name is unsafe."""
        provenance = self.config.get("provenance")
        own = provenance.get("run_id") if isinstance(provenance, Mapping) else None
        return next((name for name in (own, self.id) if is_safe(name)), None) if is_safe(self.id) else None


def is_safe(name: object) -> bool:
    """Whether a name from the server may become the name of a directory."""
    if not isinstance(name, str) or name in RESERVED:
        return False
    return DIRECTORY.fullmatch(name) is not None and DEVICE.fullmatch(name) is None


def by_directory(runs: Iterable[RemoteRun]) -> dict[str, RemoteRun]:
    """Return directory name -> run; of several runs with one directory the finished, else the latest alive one."""
    chosen: dict[str, RemoteRun] = {}
    for run in sorted(runs, key=lambda run: (run.is_finished, run.is_alive, run.heartbeat)):
        if run.directory is not None:
            chosen[run.directory] = run
    return chosen


def seconds(time: object) -> float:
    """Return an ISO 8601 time in seconds since the epoch, 0 for anything else."""
    try:
        moment = datetime.fromisoformat(str(time))
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def config_of(run: RemoteRun) -> tuple[Row, Row]:
    """Return the fields of the resolved config, and the provenance."""
    fields = {name: value for name, value in run.config.items() if name not in ("resolved", "provenance")}
    resolved, provenance = run.config.get("resolved"), run.config.get("provenance")
    fields |= resolved if isinstance(resolved, dict) else {}
    return fields, dict(provenance) if isinstance(provenance, dict) else {}


def summary_of(run: RemoteRun) -> Row:
    """Return the run's own summary, without the last row of the history, which W&B adds."""
    return {key: finite(run.summary[key]) for key in SUMMARY_KEYS if key in run.summary}


def state_of(run: RemoteRun) -> tuple[str, str, str]:
    """Return state, reason and cause of a run that is not finished, for `files.write_state`."""
    if run.is_alive:
        return "running", "", ""
    reported = {name: str(run.summary.get(name) or "") for name in ("state", "reason", "cause")}
    if reported["state"] in ("failed", "killed"):
        return reported["state"], reported["reason"], reported["cause"]
    state, reason = REASONS.get(run.state, ("killed", f"W&B reports the state {run.state!r}"))
    return state, reason, ""


def epochs_of(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return one row per epoch with HISTORY_KEYS, in order.

    If an epoch was logged twice, the later row counts. Rows without an epoch, such as those of tables, do not.
    """
    epochs: dict[int, Row] = {}
    for row in rows:
        epoch = finite(row.get("epoch"))
        if isinstance(epoch, int | float) and not isinstance(epoch, bool) and epoch >= 1 and epoch == int(epoch):
            epochs[int(epoch)] = {key: finite(row[key]) for key in HISTORY_KEYS if key in row} | {"epoch": int(epoch)}
    return [epochs[epoch] for epoch in sorted(epochs)]


def finite(value: Any) -> Any:
    """Return the value, with None for NaN and infinity, which the server sends as strings and JSON can't hold."""
    if isinstance(value, dict):
        return {str(name): finite(inner) for name, inner in value.items()}
    if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value

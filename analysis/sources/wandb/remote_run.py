"""One run as a W&B server lists it, and what it means as a run directory."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune.rundir.keys import HISTORY_KEYS, PLAN, REMOTE, SUMMARY_KEYS, SWEEP

ALIVE = ("running", "pending", "preempting")
DIRECTORY = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_-])?")  # not hidden, nothing that leads outside
TAKEN = (REMOTE, SWEEP, PLAN, "trials", "wandb")  # what else lies beside run directories
# What Windows opens as a device, whatever follows after a dot (learn.microsoft.com, "Naming Files, Paths").
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
REASONS = {
    "failed": ("failed", "it ended with an error and told W&B no reason"),
    "killed": ("killed", "it was stopped before it could tell a reason"),
    "crashed": ("killed", "W&B has heard nothing of it for minutes"),
    "preempted": ("killed", "its machine was taken away"),
    "finished": ("failed", "it ended without results"),
}
Row = dict[str, Any]


@dataclass(frozen=True)
class RemoteRun:
    """What the list of a sweep's runs says of one.

    Attributes:
        id: of the W&B run.
        path: entity/project/id.
        state: as W&B names it: running, finished, failed, crashed, killed, pending, preempting, preempted.
        config, summary: as plain values.
        rows: how many rows its history has.
        heartbeat: when it was last heard of, in seconds since the epoch; 0 where that is unknown.
        handle: the client's object, to ask for more.
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
        """Whether more is to come."""
        return self.state in ALIVE

    @property
    def is_finished(self) -> bool:
        """Whether it was tested, and all of that was sent. W&B calls it killed where it was asked to stop early."""
        return not self.is_alive and self.summary.get("state") == "finished"

    @property
    def directory(self) -> str | None:
        """The name of its run directory, the same as on the machine that ran it; None if it has none that is safe."""
        provenance = self.config.get("provenance")
        own = provenance.get("run_id") if isinstance(provenance, Mapping) else None
        return next((name for name in (own, self.id) if is_safe(name)), None) if is_safe(self.id) else None


def is_safe(name: object) -> bool:
    """Whether the server's word for something may become the name of a directory."""
    if not isinstance(name, str) or name in TAKEN:
        return False
    return DIRECTORY.fullmatch(name) is not None and DEVICE.fullmatch(name) is None


def by_directory(runs: Iterable[RemoteRun]) -> dict[str, RemoteRun]:
    """Return name of directory -> its run: of those that are one run here, the finished one, else the latest alive."""
    chosen: dict[str, RemoteRun] = {}
    for run in sorted(runs, key=lambda run: (run.is_finished, run.is_alive, run.heartbeat)):
        if run.directory is not None:
            chosen[run.directory] = run
    return chosen


def seconds(time: object) -> float:
    """Return a time as the server writes it in seconds since the epoch, or 0 for anything else."""
    try:
        read = datetime.fromisoformat(str(time))
    except ValueError:
        return 0.0
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def config_of(run: RemoteRun) -> tuple[Row, Row]:
    """Return the resolved fields, and where they were run."""
    fields = {name: value for name, value in run.config.items() if name not in ("resolved", "provenance")}
    resolved, provenance = run.config.get("resolved"), run.config.get("provenance")
    fields |= resolved if isinstance(resolved, dict) else {}
    return fields, dict(provenance) if isinstance(provenance, dict) else {}


def summary_of(run: RemoteRun) -> Row:
    """Return the summary's own keys; the server has the last row of the history among them."""
    return {key: finite(run.summary[key]) for key in SUMMARY_KEYS if key in run.summary}


def state_of(run: RemoteRun) -> tuple[str, str, str]:
    """Return state, reason and cause of a run that is not finished, as `record.write_state` takes them."""
    if run.is_alive:
        return "running", "", ""
    told = {name: str(run.summary.get(name) or "") for name in ("state", "reason", "cause")}
    if told["state"] in ("failed", "killed"):
        return told["state"], told["reason"], told["cause"]
    state, reason = REASONS.get(run.state, ("killed", f"W&B says {run.state!r} of it"))
    return state, reason, ""


def epochs_of(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return one row an epoch, HISTORY_KEYS, in order.

    Of an epoch that was logged twice the later row counts; rows without an epoch, such as those of tables, do not.
    """
    found: dict[int, Row] = {}
    for row in rows:
        epoch = finite(row.get("epoch"))
        if isinstance(epoch, int | float) and not isinstance(epoch, bool) and epoch >= 1 and epoch == int(epoch):
            found[int(epoch)] = {key: finite(row[key]) for key in HISTORY_KEYS if key in row} | {"epoch": int(epoch)}
    return [found[epoch] for epoch in sorted(found)]


def finite(value: Any) -> Any:
    """Return the value, and None for NaN and infinity, which the server writes as words and JSON can't hold."""
    if isinstance(value, dict):
        return {str(name): finite(inner) for name, inner in value.items()}
    if value in ("NaN", "Infinity", "-Infinity") or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value

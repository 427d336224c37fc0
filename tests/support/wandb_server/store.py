"""What the backend knows: projects, sweeps, agents, runs, artifacts, reports. Everything in memory."""

import base64
import json
import math
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

ENTITY = "tester"
ALIVE = ("pending", "running", "preempting")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_id() -> str:
    """Return an id as runs and sweeps have: 8 letters and digits."""
    return "".join(secrets.choice(LETTERS) for _ in range(8))


def storage_id(kind: str, *parts: object) -> str:
    """Return an id as the server gives to what it stores: base64, without padding to lose."""
    text = ":".join([kind, "v1", *map(str, parts)])
    return base64.b64encode((text + " " * (-len(text.encode()) % 3)).encode()).decode()


def stamp(seconds: float) -> str:
    """Return a time of the wall clock as the server writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plain(value: Any) -> Any:
    """Return a JSON value with NaN and the infinities as strings, the way the server answers them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def dump(value: Any) -> str:
    """Return the value as strict JSON text."""
    return json.dumps(plain(value), allow_nan=False)


@dataclass
class Agent:
    """An agent that registered for a sweep; `alive` is what it last said to be running."""

    id: str
    sweep: str
    host: str
    alive: set[str] = field(default_factory=set)
    given: list[str] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    heartbeat: float = field(default_factory=time.time)


@dataclass
class Run:
    """One run; `id` is the client's (8 letters), `lines` and `events` are the streams by line number."""

    id: str
    project: str
    display_name: str = ""
    state: str = "running"
    raw_config: dict[str, Any] = field(default_factory=dict)
    args: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, dict[str, Any]] = field(default_factory=dict)
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    console: dict[int, str] = field(default_factory=dict)
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    description: str | None = None
    sweep: str | None = None
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    preempting: bool = False
    should_stop: bool = False
    stop_asked: bool = False
    heartbeat: float = field(default_factory=time.monotonic)
    created: float = field(default_factory=time.time)
    used: list[str] = field(default_factory=list)

    @property
    def storage(self) -> str:
        """The id under which the server stores it."""
        return storage_id("Run", self.id, self.project, ENTITY)

    @property
    def alive(self) -> bool:
        """Whether it may still go on by itself."""
        return self.state in ALIVE

    @property
    def told_to_stop(self) -> bool:
        """Whether it should stop: for early termination, or because someone asked."""
        return self.should_stop or self.stop_asked

    @property
    def config(self) -> dict[str, Any]:
        """The values of the config."""
        unwrapped = {
            name: item["value"] if isinstance(item, dict) and "value" in item else item
            for name, item in list(self.raw_config.items())
        }
        unwrapped.pop("_wandb", None)
        return unwrapped

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged rows, by line number."""
        return [row for _, row in sorted(self.lines.items())]

    @property
    def output(self) -> list[str]:
        """The console's lines."""
        return [line for _, line in sorted(self.console.items())]


@dataclass
class Sweep:
    """One sweep; `all_runs` has its runs in creation order."""

    id: str
    project: str
    text: str
    config: dict[str, Any]
    name: str = ""
    controller: str | None = None
    scheduler: str | None = None
    expected: int | None = None
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    runs: list[Run] = field(default_factory=list)
    state: str = "PENDING"

    @property
    def storage(self) -> str:
        """The id under which the server stores it."""
        return storage_id("Sweep", self.id, self.project, ENTITY)


@dataclass
class Artifact:
    """A version of an artifact; `files` are filled when it is committed."""

    number: int
    project: str
    run: str | None
    type: str
    collection: str
    digest: str
    description: str | None = None
    metadata: str | None = None
    client_id: str | None = None
    aliases: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    state: str = "PENDING"
    version: int | None = None
    manifest: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: float = field(default_factory=time.time)

    @property
    def storage(self) -> str:
        """The id under which the server stores it."""
        return storage_id("Artifact", self.number)

    @property
    def name(self) -> str:
        """The name with the version, once it has one."""
        return self.collection if self.version is None else f"{self.collection}:v{self.version}"


@dataclass
class Project:
    """A project and its number."""

    name: str
    number: int
    created: float = field(default_factory=time.time)

    @property
    def storage(self) -> str:
        """The id under which the server stores it."""
        return storage_id("Project", self.name, ENTITY)


class Store:
    """All of it, and the lock that whoever reads or writes has to hold."""

    def __init__(self) -> None:
        """Start empty."""
        self.lock = threading.RLock()
        self.url = ""
        self.crash_after = 300.0
        self.projects: dict[str, Project] = {}
        self.runs: dict[tuple[str, str], Run] = {}
        self.sweeps: dict[str, Sweep] = {}
        self.agents: dict[str, Agent] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.blobs: dict[str, bytes] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.run_counts: dict[str, Counter[str]] = {}
        self.errors: list[str] = []

    def project(self, name: str | None) -> Project:
        """Return the project, made if need be."""
        name = name or "uncategorized"
        return self.projects.setdefault(name, Project(name, len(self.projects) + 1))

    def run(self, project: str | None, name: str) -> Run | None:
        """Return a run by its id, or by its storage id in whichever project."""
        found = self.runs.get((project or "uncategorized", name))
        if found is None:
            found = next((run for run in self.runs.values() if run.storage == name), None)
        return found

    def find_run(self, name: str) -> Run:
        """Return a run by its id or storage id, whichever project it is in.

        Raises:
            KeyError: If there is none.
        """
        for run in self.runs.values():
            if name in (run.id, run.storage):
                return run
        raise KeyError(f"there is no run {name}")

    def sweep(self, name: str | None) -> Sweep | None:
        """Return a sweep by its id or storage id."""
        for sweep in self.sweeps.values():
            if name in (sweep.id, sweep.storage):
                return sweep
        return None

    def add_run(self, run: Run) -> Run:
        """Keep a new run, in its sweep too."""
        self.project(run.project)
        run.display_name = run.display_name or f"run-{len(self.runs) + 1}"
        self.runs[run.project, run.id] = run
        if run.sweep:
            self.sweeps[run.sweep].runs.append(run)
        return run

    def delete_run(self, run: Run) -> None:
        """Forget a run."""
        del self.runs[run.project, run.id]
        sweep = self.sweeps.get(run.sweep or "")
        if sweep:
            sweep.runs.remove(run)

    def count(self, what: str, names: Iterable[str]) -> None:
        """Count a request, for the runs (by id or storage id) that it names, too."""
        self.counts[what] += 1
        for name in names:
            self.run_counts.setdefault(name, Counter())[what] += 1

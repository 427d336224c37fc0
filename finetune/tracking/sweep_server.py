"""Sweeps on a W&B server: find, create and stop them; count their runs, and list the failed ones.

A function that makes a request raises WandbError if the server can't be reached or refuses.
"""

import contextlib
import netrc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

from finetune.errors import UserError
from finetune.system import documents
from finetune.system.redaction import without_login
from finetune.tracking import mirror_client
from finetune.tracking.sweep_address import SweepAddress, default_project
from finetune.tracking.wandb_exit import bound_exit

OPEN_STATES = ("PENDING", "RUNNING", "PAUSED")  # states of a sweep that still has runs to do
FAILED_STATES = ("failed", "crashed")  # states of runs that W&B does not hand out again

T = TypeVar("T")


class WandbError(UserError):
    """The W&B server lacks the object of a request, or refuses the request."""


class WandbUnreachable(WandbError):
    """The W&B server does not answer, or does not take the login."""


@dataclass(frozen=True)
class WandbSweep:
    """A sweep on a W&B server.

    Attributes:
        id: eight characters.
        state: PENDING, RUNNING, PAUSED, FINISHED, CANCELED or STOPPED.
        spec: its sweep file.
        expected: number of runs, None for a search without an end of its own.
        created: time in ISO 8601.
    """

    entity: str
    project: str
    id: str
    state: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    expected: int | None = None
    url: str = ""
    created: str = ""

    @property
    def address(self) -> SweepAddress:
        return SweepAddress(self.entity, self.project, self.id)

    @property
    def path(self) -> str:
        """`entity/project/id`, as W&B's commands take it."""
        return str(self.address)


def reason_offline() -> str | None:
    """Return why W&B can't be used (switched off, or not logged in), None if it can. Makes no request."""
    if mirror_client.is_off():
        return f"WANDB_MODE is {os.environ['WANDB_MODE']}"
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    try:
        host = urlparse(_base_url()).hostname or ""
    except ValueError:
        return f"WANDB_BASE_URL is no address: {_base_url()!r}"
    files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for file in (Path(name).expanduser() for name in files):
        try:
            if file.exists() and netrc.netrc(str(file)).authenticators(host):
                return None
        except (netrc.NetrcParseError, OSError, UnicodeError):
            continue
    return "you are not logged in to W&B (wandb login)"


def _base_url() -> str:
    """Return the server's address: from the environment, else from the user's settings of W&B's client."""
    if os.environ.get("WANDB_BASE_URL"):
        return os.environ["WANDB_BASE_URL"]
    import wandb

    return str(wandb.setup().settings.base_url)


def find_sweep(address: SweepAddress) -> WandbSweep:
    """Return the sweep with this address; WandbError if there is none."""
    project = address.project or default_project()

    def read(api: Any) -> WandbSweep:
        try:
            sweep = api.sweep(str(SweepAddress(address.entity, project, address.id)))
        except ValueError:
            owner = f" of {address.entity}" if address.entity else ""
            raise WandbError(
                f"W&B ({_base_url()}) has no sweep {address.id} in project {project}{owner}, or this account may not "
                "see it. Its page's address, or entity/project/id, names one in another project"
            ) from None
        return _sweep(sweep, address.id)

    return _query(read, f"the sweep {address}")


def newest_open(project: str) -> tuple[WandbSweep | None, int]:
    """Return the newest sweep of a project with runs to do, except paused ones, and the project's number of sweeps."""

    def read(api: Any) -> tuple[WandbSweep | None, int]:
        entity = os.environ.get("WANDB_ENTITY") or api.default_entity
        sweeps = api.project(project, entity).sweeps(per_page=100)
        nodes = []
        while sweeps.more:
            sweeps._update_response()  # iterating would ask the server once more for every sweep
            if sweeps.last_response is None or sweeps.last_response.project is None:
                return None, 0  # no such project yet
            nodes += [edge.node for edge in sweeps.last_response.project.sweeps.edges]
            sweeps.variables["cursor"] = sweeps.cursor
        active = [node for node in nodes if node.state.upper() in OPEN_STATES and node.state.upper() != "PAUSED"]
        if not active:
            return None, len(nodes)
        newest = max(active, key=lambda node: str(node.created_at))
        return find_sweep(SweepAddress(entity, project, newest.name)), len(nodes)

    return _query(read, f"the sweeps of project {project}")


@dataclass(frozen=True)
class FailedWandbRun:
    """A run that failed or crashed on the server.

    Attributes:
        values: its parameters in the sweep.
        reason, cause: as the run reported them; the cause may be empty.
    """

    id: str
    values: dict[str, Any]
    reason: str
    cause: str


def failed_runs(sweep: WandbSweep) -> list[FailedWandbRun]:
    """Return the failed and crashed runs of a sweep, oldest first."""
    names = sweep.spec.get("parameters", {})

    def read(api: Any) -> list[FailedWandbRun]:
        return [
            FailedWandbRun(
                run.id,
                {name: run.config[name] for name in names if name in run.config},
                str(run.summary.get("reason") or "no reason is known"),
                str(run.summary.get("cause") or ""),
            )
            for run in _list_runs(api, sweep, _in_sweep(sweep), order="+created_at", lazy=False)
            if run.state in FAILED_STATES
        ]

    return _query(read, f"the failed runs of {sweep.path}")


def count_states(sweep: WandbSweep) -> Counter[str]:
    """Count the runs of a sweep by their state on the server."""

    def read(api: Any) -> Counter[str]:
        return Counter(str(run.state) for run in _list_runs(api, sweep, _in_sweep(sweep)))

    return _query(read, f"the runs of {sweep.path}")


def run_states(sweep: WandbSweep, names: list[str]) -> dict[str, tuple[str | None, str]]:
    """Return id -> (sweep, state) of all runs of a sweep, and of the runs of its project with one of these names."""

    def read(api: Any) -> dict[str, tuple[str | None, str]]:
        listed = (_list_runs(api, sweep, filters) for filters in (_in_sweep(sweep), {"name": {"$in": names}}))
        return {str(run.id): (run.sweep_name, str(run.state)) for runs in listed for run in runs}

    return _query(read, f"the runs of {sweep.path}")


def create_sweep(spec: dict[str, Any], entity: str | None, project: str) -> WandbSweep:
    """Create a sweep and return it."""

    def create(api: Any) -> WandbSweep:
        import wandb

        owner = entity or os.environ.get("WANDB_ENTITY") or api.default_entity
        return find_sweep(SweepAddress(owner, project, wandb.sweep(spec, entity=owner, project=project)))

    return _query(create, "a new sweep")


def stop_sweep(sweep: WandbSweep) -> bool:
    """Stop a sweep on the server, unless it is over already; return whether it is over now."""
    with contextlib.suppress(WandbError, subprocess.TimeoutExpired):
        if find_sweep(sweep.address).state not in OPEN_STATES:
            return True
        command = [sys.executable, "-m", "wandb", "sweep", "--stop", sweep.path]
        return subprocess.run(command, check=False, capture_output=True, timeout=120).returncode == 0
    return False


def _list_runs(api: Any, sweep: WandbSweep, filters: dict[str, Any], **options: Any) -> Any:
    """Return the runs of the sweep's project that match `filters`, as objects of W&B's client."""
    return api.runs(f"{sweep.entity}/{sweep.project}", filters=filters, per_page=100, **options)


def _in_sweep(sweep: WandbSweep) -> dict[str, Any]:
    return {"$and": [{"sweep": sweep.id}]}


def _sweep(sweep: Any, sweep_id: str) -> WandbSweep:
    """Return the sweep of W&B's client as a `WandbSweep`."""
    attributes = sweep._attrs
    spec = documents.load_yaml(attributes.get("config") or "{}")
    return WandbSweep(
        sweep.entity,
        sweep.project,
        sweep_id,
        state=str(attributes["state"]).upper(),
        spec=spec if isinstance(spec, dict) else {},
        expected=attributes.get("runCountExpected"),
        url=without_login(sweep.url),
        created=str(attributes.get("createdAt") or "1970-01-01"),
    )


def _query(read: Callable[[Any], T], subject: str) -> T:
    """Return `read(wandb.Api())`; every error of the client becomes a WandbError about `subject`."""
    import wandb

    bound_exit()
    try:
        api = wandb.Api(timeout=20)
    except wandb.errors.AuthenticationError as error:
        raise WandbUnreachable(f"W&B ({_base_url()}) does not take the login: {error}") from error
    except Exception as error:  # W&B's client raises many kinds, down to ValueError
        raise WandbUnreachable(
            f"W&B ({_base_url()}) does not answer: check the network and WANDB_BASE_URL. The client says: {error}"
        ) from error
    try:
        return read(api)
    except WandbError:
        raise
    except Exception as error:
        raise WandbError(f"W&B does not answer about {subject}: {error}") from error

"""Chooses the sweep to run: a sweep file, offline, or a sweep on a W&B server."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from finetune.errors import UserError
from finetune.rundir import keys
from finetune.sweep import sweep_file
from finetune.sweep.display import console
from finetune.sweep.sweep_file import SweepFile
from finetune.tracking import sweep_server
from finetune.tracking.mirror_client import is_off
from finetune.tracking.sweep_address import SweepAddress, default_project, parse_sweep_address
from finetune.tracking.sweep_server import WandbError, WandbSweep, WandbUnreachable


def choose_sweep(argument: str | None, settings: Sequence[str], name: str | None) -> SweepFile | WandbSweep | None:
    """Return the sweep that the command line names; print why and return None if there is nothing to do.

    Args:
        argument: a file or folder, the address of a sweep on a server, or None for the newest unfinished sweep: on the
            server if the user is logged in, else here.
        settings, name: --set and --name, which are for sweep files.

    Raises:
        UserError: the sweep can't be used; the message says what to do.
    """
    address = parse_sweep_address(argument) if argument and not Path(argument).exists() else None
    if address is not None:
        return _on_server(address, bool(settings or name))
    if argument or settings or name:
        return sweep_file.load(argument, settings, name)
    return _newest()


def _on_server(address: SweepAddress, has_settings: bool) -> WandbSweep:
    if has_settings:
        raise UserError(
            f"{address} is a sweep on a W&B server, where --set, --folds, --keep and --name change nothing: give a "
            "sweep file"
        )
    if reason := sweep_server.reason_offline():
        advice = "Unset it" if is_off() else "Log in"
        raise UserError(
            f"{address} is a sweep on a W&B server, but {reason}. {advice}, or give a sweep file to run offline"
        )
    return sweep_server.find_sweep(address)


def _newest() -> SweepFile | WandbSweep | None:
    """Return the newest unfinished sweep, on the server or here, and print why; see `choose_sweep`."""
    here = sweep_file.newest_unfinished(sweep_file.RUNS)
    offline = f"running {here or sweep_file.DEFAULT} offline"
    if reason := sweep_server.reason_offline():
        console.print(f"{reason}: {offline}; `make publish` sends the runs to W&B later")
        return sweep_file.load(None)
    project = default_project()
    try:
        remote, sweeps = sweep_server.newest_open(project)
    except WandbUnreachable as error:
        console.print(f"{error}\n{offline}; `make publish` sends the runs to W&B later")
        return sweep_file.load(None)
    except WandbError as error:
        raise UserError(f"{error}\nName the sweep (SWEEP=entity/project/id), or a sweep file to run offline") from None
    if remote is None and here is None and sweeps:
        console.print(f"nothing to do: project {project} has no unfinished sweep on W&B, and there is none here")
        console.print(f"a new one: wandb sweep FILE, then make agents; offline: make agents SWEEP={sweep_file.DEFAULT}")
        return None
    if remote is None:
        console.print(f"project {project} has no unfinished sweep on W&B (wandb sweep FILE makes one): {offline}")
        return sweep_file.load(None)
    if here is not None and (here / keys.SWEEP).stat().st_mtime > _seconds(remote.created):
        console.print(f"{offline}: it is newer than the unfinished sweep on W&B; to run that: SWEEP={remote.path}")
        return sweep_file.load(None)
    return remote


def _seconds(created: str) -> float:
    """Return a time in ISO 8601 (UTC if it has no zone) in seconds since 1970."""
    moment = datetime.fromisoformat(created)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

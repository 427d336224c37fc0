"""Chooses the sweep to run: a sweep file, offline, or a sweep on a W&B server."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from finetune.errors import UserError
from finetune.rundir import keys
from finetune.sweep import sweep_file
from finetune.sweep.display import console
from finetune.sweep.sweep_file import SweepFile
from finetune.system import documents
from finetune.system.environment import ROOT
from finetune.tracking import sweep_server
from finetune.tracking.mirror_client import is_off
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
    if argument and (Path(argument).exists() or sweep_server.parse_sweep_address(argument) is None):
        return sweep_file.load(argument, settings, name)
    if argument:
        return _on_server(argument, bool(settings or name))
    if settings or name:  # for sweep files
        return sweep_file.load(None, settings, name)
    return _newest()


def _on_server(argument: str, has_settings: bool) -> WandbSweep:
    if has_settings:
        raise UserError(
            f"{argument} is a sweep on a W&B server, where --set, --folds, --keep and --name change nothing: give a "
            "sweep file"
        )
    if reason := sweep_server.reason_offline():
        advice = "Unset it" if is_off() else "Log in"
        raise UserError(
            f"{argument} is a sweep on a W&B server, but {reason}. {advice}, or give a sweep file to run offline"
        )
    return sweep_server.find_sweep(argument, _project())


def _newest() -> SweepFile | WandbSweep | None:
    """Return the newest unfinished sweep, on the server or here, and print why; see `choose_sweep`."""
    here = sweep_file.newest_unfinished(sweep_file.RUNS)
    offline = f"running {here or sweep_file.DEFAULT} offline"
    if reason := sweep_server.reason_offline():
        console.print(f"{reason}: {offline}; `make publish` sends the runs to W&B later")
        return sweep_file.load(None)
    project = _project()
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


def _project() -> str:
    """Return the project to search for sweeps: WANDB_PROJECT, else that of the default sweep file."""
    if os.environ.get("WANDB_PROJECT"):
        return os.environ["WANDB_PROJECT"]
    spec = documents.load_yaml((ROOT / sweep_file.DEFAULT).read_text(encoding="utf-8"))
    return str(spec["project"])


def _seconds(created: str) -> float:
    """Return a time in ISO 8601 (UTC if it has no zone) in seconds since 1970."""
    moment = datetime.fromisoformat(created)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

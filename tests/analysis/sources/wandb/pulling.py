"""Helpers of the tests of fetching: pull a sweep, and look at what came."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.sources.wandb import client
from analysis.sources.wandb.sync import SyncResult, sync_runs
from finetune.rundir import files, keys
from finetune.tracking.sweep_address import SweepAddress
from tests.online.runs_on_server import PROJECT
from tests.support.wandb_server.server import Server
from tests.support.wandb_server.store import ENTITY


def no_progress(what: Iterable[Any], _: int) -> Iterable[Any]:
    """Show no progress."""
    return what


def pulled(sweep: str, folder: Path, project: str = PROJECT) -> SyncResult:
    """Pull a sweep with a connection of its own."""
    return sync_runs(client.connect(), SweepAddress(ENTITY, project, sweep), folder, no_progress)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_fetched(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return files of run directories as they are once fetched: their configs do not tell where the images were."""
    line = re.compile(rb"^  data_root: .*\n", re.MULTILINE)
    return {name: line.sub(b"", file) if name.endswith(keys.CONFIG) else file for name, file in files.items()}


def config_as_fetched(run_dir: Path) -> dict[str, Any]:
    """Return the config of a run directory as it is once fetched: it does not tell where the images were."""
    config = files.read_config(run_dir)
    del config["provenance"]["data_root"]
    return config


def requests(server: Server) -> Counter[str]:
    """Return what has been asked so far, logging in left out."""
    return Counter({name: number for name, number in server.counts.items() if name != "Viewer"})

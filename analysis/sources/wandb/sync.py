"""Fetches a sweep from a W&B server into run directories like those of the machines that ran it.

A finished run is fetched once, from its files on the server; the others are updated by each call. client.py makes the
requests, store.py decides what happens to directories.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.sources.wandb import client, remote_run, store
from analysis.sources.wandb.client import Server
from analysis.sources.wandb.errors import describe, fetch_errors, is_transient
from analysis.sources.wandb.remote_run import RemoteRun
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import WriteError, raising_write_error, write_atomic
from finetune.tracking.sweep_address import SweepAddress, folder_address

THREADS = 6
REQUIRED = (keys.PREDICTIONS, keys.CONFIG, keys.SUMMARY)  # without these a finished run is fetched again

SyncProgress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class SyncResult:
    """The outcome of `sync_runs`.

    Attributes:
        runs: number of runs on the server.
        fetched: number of runs that were fetched or updated.
        faults: a sentence for each run that could not be fetched.
    """

    runs: int
    fetched: int
    faults: tuple[str, ...]


def sync_runs(server: Server, address: SweepAddress, folder: Path, show_progress: SyncProgress) -> SyncResult:
    """Fetch the runs of a sweep that `folder` lacks. After an error, runs fetched before stay.

    Args:
        address: with entity and project.
        show_progress: wraps the runs to fetch; takes them and their number.

    Raises:
        FetchError: the server has no such sweep, or a request fails.
        WriteError: the disk is full, for example.
    """
    with fetch_errors(server.url):
        has_sweep_file = (folder / keys.SWEEP).exists()
        is_known = has_sweep_file and folder_address(folder) in (None, address)
        sweep_text = None if is_known else client.sweep_text(server, address)
        runs = client.list_runs(server, address)
        if not runs:
            return SyncResult(0, 0, ())
        with raising_write_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
        store.note_origin(folder, address, f"{server.page}/{address.entity}/{address.project}/sweeps/{address.id}")
        if sweep_text is not None and not has_sweep_file:
            write_atomic(folder / keys.SWEEP, sweep_text)
        run_dirs = {store.directory_for(run, folder, name): run for name, run in remote_run.by_directory(runs).items()}
        for run in runs:
            if folder / run.id not in run_dirs:
                store.mark_superseded(run, folder)
        to_fetch = [(run, run_dir) for run_dir, run in run_dirs.items() if store.needs_fetch(run, run_dir)]
        faults = [f"{run.path}: its name can't be that of a directory." for run in runs if run.directory is None]
        fetched = 0
        with _thread_pool(server) as pool:
            futures = {pool.submit(_fetch, server, run, run_dir): run for run, run_dir in to_fetch}
            for future in show_progress(as_completed(futures), len(futures)):
                try:
                    fetched += future.result()
                except Exception as error:
                    if is_transient(error) or isinstance(error, WriteError):  # the other runs would fail too
                        raise
                    faults.append(f"{futures[future].path}: {describe(error, server.url)}")
        return SyncResult(len(runs), fetched, tuple(faults))


def _fetch(server: Server, run: RemoteRun, run_dir: Path) -> bool:
    """Fetch one run; return False if a local process has begun to run it meanwhile."""
    with raising_write_error(run_dir):
        run_dir.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=run_dir) as name:
            fetch = _fetch_finished if run.is_finished else _fetch_unfinished
            missing = fetch(server, run, Path(name))
            return store.install(run, Path(name), run_dir, missing)


def _fetch_finished(server: Server, run: RemoteRun, folder: Path) -> list[str]:
    """Write a finished run's files to `folder`; return the required files that the server lacks."""
    downloaded = client.download(server, run, folder)
    missing = [name for name in REQUIRED if name not in downloaded]
    if keys.CONFIG not in downloaded:
        files.write_config(folder, *remote_run.config_of(run))
    if keys.SUMMARY not in downloaded:
        documents.write_json(folder / keys.SUMMARY, remote_run.summary_of(run))
    trained = (documents.read_json(folder / keys.SUMMARY) or {}).get("epochs")
    rows, _ = files.read_history(folder)
    count = len(remote_run.epochs_of(rows))
    if count != trained:
        scanned = client.history(server, run)
        if len(scanned) == trained or len(scanned) > count:
            files.write_history(folder, scanned)
    files.write_state(folder, "finished")
    return missing


def _fetch_unfinished(server: Server, run: RemoteRun, folder: Path) -> list[str]:
    """Write what the server has so far of an unfinished run; no file is required of it."""
    files.write_history(folder, client.history(server, run) if run.rows else [])
    files.write_state(folder, *remote_run.state_of(run))
    files.write_config(folder, *remote_run.config_of(run))
    return []


@contextmanager
def _thread_pool(server: Server) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads stop waiting for the server when the block raises."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    except BaseException:
        server.limiter.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)

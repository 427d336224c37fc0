"""A sweep on a W&B server becomes run directories, the same as on the machines that ran it.

One list of the runs tells what there is. A finished run is fetched once, from the files that it left on the server; the
others are brought up to date at each pull. client.py asks the server, store.py decides what happens to directories.
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
from analysis.sources.wandb.errors import fetch_errors, is_passing, why
from analysis.sources.wandb.remote_run import RemoteRun
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import WriteError, raising_write_error, write_atomic
from finetune.tracking.sweep_address import SweepAddress, folder_address

THREADS = 6
NEEDED = (keys.PREDICTIONS, keys.CONFIG, keys.SUMMARY)  # without these a finished run is asked for again

SyncProgress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class SyncResult:
    """What a pull did.

    Attributes:
        runs: how many the server has; fetched: how many of them were brought here or up to date.
        faults: a sentence for each that could not be.
    """

    runs: int
    fetched: int
    faults: tuple[str, ...]


def sync_runs(server: Server, given: SweepAddress, folder: Path, watch: SyncProgress) -> SyncResult:
    """Bring the runs of a sweep into `folder`, as far as they are not there yet.

    Args:
        given: with entity and project.
        watch: wraps what there is to do, with its number, to show progress.

    Raises:
        FetchError: the server has no such sweep, or can't be asked; what was fetched before stays.
        WriteError: there is no room for it, say; the same holds.
    """
    with fetch_errors(server.url):
        has_text = (folder / keys.SWEEP).exists()
        is_known = has_text and folder_address(folder) in (None, given)
        text = None if is_known else client.sweep_text(server, given)
        runs = client.list_runs(server, given)
        if not runs:
            return SyncResult(0, 0, ())
        with raising_write_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
        store.note_origin(folder, given, f"{server.page}/{given.entity}/{given.project}/sweeps/{given.id}")
        if text is not None and not has_text:
            write_atomic(folder / keys.SWEEP, text)
        places = {store.place_for(run, folder, name): run for name, run in remote_run.by_directory(runs).items()}
        for run in runs:
            if folder / run.id not in places:
                store.mark_left_over(run, folder)
        todo = [(run, run_dir) for run_dir, run in places.items() if store.is_wanted(run, run_dir)]
        faults = [f"{run.path}: its name can't be that of a directory." for run in runs if run.directory is None]
        fetched = 0
        with _pool(server) as pool:
            begun = {pool.submit(_fetch, server, run, run_dir): run for run, run_dir in todo}
            for done in watch(as_completed(begun), len(begun)):
                try:
                    fetched += done.result()
                except Exception as error:
                    # The others would wait as long, one after another, or find no room either.
                    if is_passing(error) or isinstance(error, WriteError):
                        raise
                    faults.append(f"{begun[done].path}: {why(error, server.url)}")
        return SyncResult(len(runs), fetched, tuple(faults))


def _fetch(server: Server, run: RemoteRun, run_dir: Path) -> bool:
    """Bring one run here; return whether it was, which a process that runs it here may have prevented."""
    with raising_write_error(run_dir):
        run_dir.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=run_dir) as name:
            place = Path(name)
            missing = _finished(server, run, place) if run.is_finished else _unfinished(server, run, place)
            return store.install(run, place, run_dir, missing)


def _finished(server: Server, run: RemoteRun, place: Path) -> list[str]:
    """Write a finished run's files to `place`; return which of those that the server should have, it has not."""
    downloaded = client.download(server, run, place)
    missing = [name for name in NEEDED if name not in downloaded]
    if keys.CONFIG not in downloaded:
        files.write_config(place, *remote_run.config_of(run))
    if keys.SUMMARY not in downloaded:
        documents.write_json(place / keys.SUMMARY, remote_run.summary_of(run))
    trained = (documents.read_json(place / keys.SUMMARY) or {}).get("epochs")
    rows, _ = files.read_history(place)
    known = len(remote_run.epochs_of(rows))
    if known != trained:
        scanned = client.history(server, run)
        if len(scanned) == trained or len(scanned) > known:
            files.write_history(place, scanned)
    files.write_state(place, "finished")
    return missing


def _unfinished(server: Server, run: RemoteRun, place: Path) -> list[str]:
    """Write what is known so far of a run that is not finished."""
    files.write_history(place, client.history(server, run) if run.rows else [])
    files.write_state(place, *remote_run.state_of(run))
    files.write_config(place, *remote_run.config_of(run))
    return []


@contextmanager
def _pool(server: Server) -> Iterator[ThreadPoolExecutor]:
    """Run threads that give up as soon as this one does."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    except BaseException:
        server.limiter.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)

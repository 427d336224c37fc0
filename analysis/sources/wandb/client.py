"""Requests to a W&B server: login, sweeps, runs, their files and histories.

Only this module of the room imports wandb, and only when it is needed: the import takes a second.
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from analysis.sources.wandb import remote_run
from analysis.sources.wandb.errors import (
    CALLS_VARIABLE,
    ChangedError,
    FetchError,
    NoLoginError,
    NoSweepError,
    SwitchedOffError,
    fetch_errors,
    is_retryable,
    is_transient,
)
from analysis.sources.wandb.rate_limit import Limiter, retry
from analysis.sources.wandb.remote_run import RemoteRun
from finetune.data import thumbnails
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import DISK_FULL_ERRNOS, WriteError
from finetune.system.redaction import redact_values, without_login
from finetune.tracking.mirror_client import is_off
from finetune.tracking.sweep_address import SWEEP_ID, SweepAddress, default_project
from finetune.tracking.wandb_exit import bound_exit

CALLS_A_MINUTE, BURST = 50.0, 40  # the limits of W&B's free plan
PAGE_SIZE = 100  # runs per request
CALLS_PER_HISTORY = 3
TIMEOUT_SECONDS, SHORT_SECONDS = 30, 8  # per request; the second to find out whether the server answers at all
MAX_TRIES = 4  # per request; wandb itself retries within the timeout
FOLDER = "run/"  # holds the files of the run directory among the files of the W&B run
MEGABYTE = 2**20
MAX_BYTES = {  # of each file that is downloaded of a finished run
    keys.CONFIG: MEGABYTE,
    keys.HISTORY: 64 * MEGABYTE,
    keys.SUMMARY: MEGABYTE,
    keys.PREDICTIONS: 1024 * MEGABYTE,
    keys.SPLITS: 1024 * MEGABYTE,
    keys.THUMBNAILS: thumbnails.MAX_ARCHIVE_BYTES,
    keys.LOG: 64 * MEGABYTE,
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Server:
    """A connection to a W&B server.

    Attributes:
        api: a wandb.Api.
        page: URL of the server's pages in a browser.
        limiter: shared by all threads.
        max_tries: per request.
    """

    api: Any
    url: str
    page: str
    limiter: Limiter
    max_tries: int

    def request(self, call: Callable[[], Result], count: int = 1) -> Result:
        """Return the result of `call`, which makes `count` requests; waits for the limiter and retries."""
        return retry(call, self.limiter, is_retryable, count, self.max_tries)


def may_be_logged_in() -> bool:
    """Whether there may be a login: a quick check before wandb is imported."""
    netrc = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    has_key = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
    return has_key or any(file.is_file() for file in netrc)


def connect(previous: Server | None = None, is_brief: bool = False) -> Server:
    """Return a connection with the user's login; never asks for one.

    Args:
        previous: an earlier connection, whose limiter is kept.
        is_brief: give up after SHORT_SECONDS without an answer, and do not retry.

    Raises:
        NoLoginError: nobody is logged in.
        FetchError: W&B is switched off, or the server does not answer or refuses.
    """
    if is_off():
        raise SwitchedOffError(f"W&B is switched off (WANDB_MODE={os.environ['WANDB_MODE']}).")
    limiter = previous.limiter if previous else Limiter(_calls_a_minute(), BURST)
    import wandb
    from wandb.sdk.lib import wbauth

    bound_exit()
    quiet = wandb.Settings(silent=True, x_file_transfer_retry_max=3, x_file_transfer_timeout_seconds=300)
    settings = wandb.setup(settings=quiet).settings
    url = str(settings.base_url).rstrip("/")
    with fetch_errors(url):
        # wandb.Api() prompts for a missing login; this looks in the same places without a prompt.
        if wbauth.authenticate_session(host=url, source="analysis", prompt=False, update_session=False) is None:
            raise NoLoginError(f"Nobody is logged in to W&B ({url}).")
        api = wandb.Api(timeout=SHORT_SECONDS if is_brief else TIMEOUT_SECONDS)
    # WANDB_BASE_URL may hold a password, and these two are printed and stored.
    safe_url, page = without_login(url), without_login(str(settings.app_url).rstrip("/"))
    return Server(api, safe_url, page, limiter, 1 if is_brief else MAX_TRIES)


def newest_sweep(server: Server, project: str) -> tuple[SweepAddress, float] | None:
    """Return the project's sweep with the latest heartbeat of a run, and that time (seconds since the epoch).

    One request: the list of the project's sweeps would take one more per sweep.

    Raises:
        FetchError: the request fails.
    """
    with fetch_errors(server.url), _temporary_wandb_dir():
        entity = _entity(server)
        runs = server.api.runs(f"{entity}/{project}", order="-heartbeat_at", per_page=PAGE_SIZE)
        try:
            server.request(lambda: runs[0])
        except (IndexError, ValueError):  # no run or no project
            return None
        of_sweeps = [run for run in runs.objects if run.sweep_name]
        newest = max(of_sweeps, key=lambda run: remote_run.seconds(run.heartbeat_at), default=None)
        if newest is None or not SWEEP_ID.fullmatch(newest.sweep_name):
            return None
        return SweepAddress(entity, project, newest.sweep_name), remote_run.seconds(newest.heartbeat_at)


def complete_address(server: Server, address: SweepAddress) -> SweepAddress:
    """Return the address with entity and project.

    Raises:
        FetchError: the account's entity can't be found out.
    """
    if address.entity and address.project:
        return address
    with fetch_errors(server.url):
        return replace(address, entity=address.entity or _entity(server), project=address.project or default_project())


def download(server: Server, run: RemoteRun, folder: Path) -> list[str]:
    """Download the files of the run directory into `folder`; return the names of those that exist and are readable.

    Raises:
        ChangedError: a file was replaced during the download, at each try.
        WriteError: the disk is full.
    """
    return server.request(partial(_download, run, folder))


def _download(run: RemoteRun, folder: Path) -> list[str]:
    """List the files and download them in one try: a file may be replaced between the two."""
    names = [FOLDER + name for name in MAX_BYTES]
    with tempfile.TemporaryDirectory(dir=folder) as root:
        for file in [file for file in run.handle.files(names=names, per_page=len(names)) if file.name in names]:
            target = Path(root) / file.name
            if 0 < file.size <= MAX_BYTES[target.name]:
                _download_file(file, target)
        readable = [name for name in MAX_BYTES if _is_readable(Path(root) / FOLDER / name)]
        for name in readable:
            (Path(root) / FOLDER / name).replace(folder / name)
    return readable


def _download_file(file: Any, target: Path) -> None:
    root = target.parents[1].resolve()  # wandb's own process writes the file, and may have another working directory
    try:
        file.download(root=str(root), replace=True).close()
    except Exception as error:  # wandb's own error has the system's message in it, but not its number
        full = next((number for number in DISK_FULL_ERRNOS if os.strerror(number).lower() in str(error).lower()), None)
        if full is None:
            raise
        raise WriteError(full, os.strerror(full), target, file.size) from error
    if target.stat().st_size != file.size:
        sizes = f"{target.stat().st_size} bytes arrived, {file.size} were listed"
        raise ChangedError(f"{file.name} changes while it is fetched ({sizes}); the next call fetches it.")


def _is_readable(file: Path) -> bool:
    """Whether a downloaded file exists, and is a JSON object or YAML mapping if it should be one."""
    try:
        if file.name == keys.SUMMARY:
            documents.read_json(file)
        if file.name == keys.CONFIG:
            files.read_config(file.parent)
    except (OSError, ValueError):
        return False
    return file.is_file()


def history(server: Server, run: RemoteRun) -> list[dict[str, Any]]:
    """Return all epochs on the server; `run.history()` would return a sample of them."""
    return remote_run.epochs_of(
        server.request(lambda: list(run.handle.scan_history(use_cache=False)), CALLS_PER_HISTORY)
    )


def list_runs(server: Server, address: SweepAddress) -> list[RemoteRun]:
    """Return the sweep's runs, each with config, summary and state."""
    with _temporary_wandb_dir():
        # lazy=False: config and summary come with the list, not with one more request per run.
        runs = server.api.runs(
            f"{address.entity}/{address.project}",
            filters={"$and": [{"sweep": address.id}]},
            lazy=False,
            per_page=PAGE_SIZE,
        )
        listed: dict[str, RemoteRun] = {}
        for position in itertools.count():
            try:
                # By position: an iterator would skip a run after a page that failed.
                run = server.request(partial(runs.__getitem__, position), count=position % PAGE_SIZE == 0)
            except IndexError:
                break
            if run.job_type != "analysis":
                listed[run.id] = _remote_run(run)
        return list(listed.values())


def _remote_run(run: Any) -> RemoteRun:
    return RemoteRun(
        id=str(run.id),
        path="/".join((run.entity, run.project, run.id)),
        state=str(run.state),
        config=dict(run.config),
        summary=dict(run.summary_metrics or {}),
        rows=int(run.history_line_count or 0),
        heartbeat=remote_run.seconds(run.heartbeat_at),
        handle=run,
    )


def sweep_text(server: Server, address: SweepAddress) -> str:
    """Return the sweep file of a sweep, without secrets.

    Raises:
        NoSweepError: there is no such sweep.
    """
    import wandb

    try:
        config = server.request(lambda: server.api.sweep(str(address)).config)
    except (wandb.Error, ValueError) as error:
        if is_transient(error):
            raise
        raise NoSweepError(
            f"W&B ({server.url}) has no sweep {address}, or this account may not see it. "
            "Its page's address, or entity/project/id, names one in another project."
        ) from error
    return yaml.safe_dump(redact_values(config, environment=False), sort_keys=False, allow_unicode=True)


@contextmanager
def _temporary_wandb_dir() -> Iterator[None]:
    """In the block, wandb creates the folders of the runs it lists in a temporary folder."""
    previous = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory(prefix="finetune-wandb-", ignore_cleanup_errors=True) as folder:
        os.environ["WANDB_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["WANDB_DIR"]
            if previous is not None:
                os.environ["WANDB_DIR"] = previous


def _entity(server: Server) -> str:
    """Return the entity that the user has set, else the account's default; FetchError if there is neither."""
    entity = server.api.settings.get("entity") or server.request(lambda: server.api.default_entity)
    if not entity:
        raise FetchError("This W&B account has no default entity. Name the sweep as entity/project/id.")
    return str(entity)


def _calls_a_minute() -> float:
    """Return the limit that the user has set, else the default; FetchError if it is not a number above 0."""
    text = os.environ.get(CALLS_VARIABLE)
    try:
        value = float(text) if text else CALLS_A_MINUTE
    except ValueError:
        value = 0
    if not value > 0:
        raise FetchError(f"{CALLS_VARIABLE} is {text!r}, not a number above 0, such as {CALLS_A_MINUTE:g}.")
    return value

"""What is asked of a W&B server: is somebody logged in, which sweeps and runs are there, their files and histories.

The only importer of wandb here, and only once it is needed: loading it takes a second.
"""

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
    is_passing,
    is_worth_another_try,
)
from analysis.sources.wandb.rate_limit import Limiter, retry
from analysis.sources.wandb.remote_run import RemoteRun
from finetune.data import thumbnails
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.atomic import DISK_FULL_ERRNOS, WriteError
from finetune.system.redaction import redact_values, without_login
from finetune.tracking.sweep_address import SWEEP_ID, SweepAddress, default_project
from finetune.tracking.wandb_exit import bound_exit

CALLS_A_MINUTE, BURST = 50.0, 40  # as W&B's free plan has them
PAGE = 100  # runs in one answer
SCAN_CALLS = 3  # requests that one history takes
TIMEOUT_SECONDS, SHORT_SECONDS = 30, 8  # for one answer; the second, to learn whether there is a server at all
TRIES = 4  # of each request; the client makes some of its own within the time for an answer
FOLDER = "run/"  # of a W&B run's files, where those of the run directory lie
MEGABYTE = 2**20
FILES = {  # what is taken of a finished run, and at most how large
    keys.CONFIG: MEGABYTE,
    keys.HISTORY: 64 * MEGABYTE,
    keys.SUMMARY: MEGABYTE,
    keys.PREDICTIONS: 1024 * MEGABYTE,
    keys.SPLITS: 1024 * MEGABYTE,
    keys.THUMBNAILS: thumbnails.MOST_ARCHIVE_BYTES,
    keys.LOG: 64 * MEGABYTE,
}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Server:
    """A connection to a W&B server.

    Attributes:
        api: the client.
        url: of the server; page: of its pages in a browser.
        limiter: of the requests, over all threads.
        tries: of each request.
    """

    api: Any
    url: str
    page: str
    limiter: Limiter
    tries: int

    def ask(self, call: Callable[[], Result], calls: int = 1) -> Result:
        """Return what `call`, which makes so many requests, returns; waits, and tries again, as need be."""
        return retry(call, self.limiter, is_worth_another_try, calls, self.tries)


def is_switched_off() -> bool:
    """Whether the user keeps W&B off, or offline, by WANDB_MODE."""
    return os.environ.get("WANDB_MODE", "online") not in ("online", "shared", "")


def may_be_logged_in() -> bool:
    """Whether there is anything that could be a login: a quick look before the client is loaded."""
    netrc = [Path(os.environ["NETRC"])] if "NETRC" in os.environ else [Path.home() / ".netrc", Path.home() / "_netrc"]
    given = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
    return given or any(file.is_file() for file in netrc)


def connect(before: Server | None = None, is_brief: bool = False) -> Server:
    """Return a connection with the user's login; never asks for one.

    Args:
        before: an earlier connection, whose count of requests goes on.
        is_brief: give up after SHORT_SECONDS without an answer, and try nothing twice.

    Raises:
        NoLoginError: nobody is logged in.
        FetchError: W&B is switched off, or the server does not answer or refuses.
    """
    if is_switched_off():
        raise SwitchedOffError(f"W&B is switched off (WANDB_MODE={os.environ['WANDB_MODE']}).")
    limiter = before.limiter if before else Limiter(_calls_a_minute(), BURST)
    import wandb
    from wandb.sdk.lib import wbauth

    bound_exit()
    quiet = wandb.Settings(silent=True, x_file_transfer_retry_max=3, x_file_transfer_timeout_seconds=300)
    settings = wandb.setup(settings=quiet).settings
    url = str(settings.base_url).rstrip("/")
    with fetch_errors(url):
        # wandb.Api() asks for a login where there is none; this looks in the same places and does not.
        if wbauth.authenticate_session(host=url, source="analysis", prompt=False, update_session=False) is None:
            raise NoLoginError(f"Nobody is logged in to W&B ({url}).")
        api = wandb.Api(timeout=SHORT_SECONDS if is_brief else TIMEOUT_SECONDS)
    # WANDB_BASE_URL may have a password, and these two are told and kept; the client has its own.
    shown, page = without_login(url), without_login(str(settings.app_url).rstrip("/"))
    return Server(api, shown, page, limiter, 1 if is_brief else TRIES)


def newest_sweep(server: Server, project: str) -> tuple[SweepAddress, float] | None:
    """Return the sweep of the project in which a run was last heard of, and when (seconds since the epoch).

    One request: the list of the project's sweeps would take one more for each of them.

    Raises:
        FetchError: the server can't be asked.
    """
    with fetch_errors(server.url), _scratch():
        entity = _entity(server)
        runs = server.api.runs(f"{entity}/{project}", order="-heartbeat_at", per_page=PAGE)
        try:
            server.ask(lambda: runs[0])
        except (IndexError, ValueError):  # no run, no project
            return None
        heard = [run for run in runs.objects if run.sweep_name]
        found = max(heard, key=lambda run: remote_run.seconds(run.heartbeat_at), default=None)
        if found is None or not SWEEP_ID.fullmatch(found.sweep_name):
            return None
        return SweepAddress(entity, project, found.sweep_name), remote_run.seconds(found.heartbeat_at)


def complete_address(server: Server, given: SweepAddress) -> SweepAddress:
    """Return the address with the parts that the user left out.

    Raises:
        FetchError: the server can't be asked for the account's entity.
    """
    if given.entity and given.project:
        return given
    with fetch_errors(server.url):
        return replace(given, entity=given.entity or _entity(server), project=given.project or default_project())


def download(server: Server, run: RemoteRun, place: Path) -> list[str]:
    """Download the files of the run directory into `place`; return which were there and are what they should be.

    Raises:
        ChangedError: they were replaced while they were downloaded, at each try.
        WriteError: there is no room for them.
    """
    return server.ask(partial(_download, run, place))


def _download(run: RemoteRun, place: Path) -> list[str]:
    """List the files and download them: one try, as a file may be replaced between the two."""
    asked = [FOLDER + name for name in FILES]
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name) / FOLDER
        for file in [file for file in run.handle.files(names=asked, per_page=len(asked)) if file.name in asked]:
            target = Path(name) / file.name
            if 0 < file.size <= FILES[target.name]:
                _get(file, target)
        good = [file for file in FILES if _is_readable(folder / file)]
        for file in good:
            (folder / file).replace(place / file)
    return good


def _get(file: Any, target: Path) -> None:
    """Download one file, whole; its name is one of ours."""
    root = target.parents[1].resolve()  # the client's own process writes it, which may work in another folder
    try:
        file.download(root=str(root), replace=True).close()
    except Exception as error:  # the client's own, which has the system's words in it and no number
        full = next((number for number in DISK_FULL_ERRNOS if os.strerror(number).lower() in str(error).lower()), None)
        if full is None:
            raise
        raise WriteError(full, os.strerror(full), target, file.size) from error
    if target.stat().st_size != file.size:
        sizes = f"{target.stat().st_size} bytes arrived, {file.size} were listed"
        raise ChangedError(f"{file.name} changes while it is fetched ({sizes}); the next time it is asked for again.")


def _is_readable(file: Path) -> bool:
    """Whether a downloaded file is there, and is an object if it should be one."""
    try:
        if file.name == keys.SUMMARY:
            documents.read_json(file)
        if file.name == keys.CONFIG:
            files.read_config(file.parent)
    except (OSError, ValueError):
        return False
    return file.is_file()


def history(server: Server, run: RemoteRun) -> list[dict[str, Any]]:
    """Return all epochs that the server knows; `run.history()` would give a sample of them."""
    return remote_run.epochs_of(server.ask(lambda: list(run.handle.scan_history(use_cache=False)), SCAN_CALLS))


def list_runs(server: Server, given: SweepAddress) -> list[RemoteRun]:
    """Return the sweep's runs, each with config, summary and state."""
    with _scratch():
        # lazy=False: config and summary come with the list, not with one more request a run.
        runs = server.api.runs(
            f"{given.entity}/{given.project}", filters={"$and": [{"sweep": given.id}]}, lazy=False, per_page=PAGE
        )
        listed: dict[str, RemoteRun] = {}
        position = 0
        while True:
            try:
                # By position: an iterator would skip a run after a page that failed.
                run = server.ask(lambda: runs[position], calls=position % PAGE == 0)  # noqa: B023
            except IndexError:
                return list(listed.values())
            position += 1
            if run.job_type != "analysis":
                listed[run.id] = _remote(run)


def _remote(run: Any) -> RemoteRun:
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


def sweep_text(server: Server, given: SweepAddress) -> str:
    """Return the sweep's configuration as YAML, secrets taken out.

    Raises:
        NoSweepError: there is no such sweep.
    """
    import wandb

    try:
        config = server.ask(lambda: server.api.sweep(str(given)).config)
    except (wandb.Error, ValueError) as error:
        if is_passing(error):
            raise
        raise NoSweepError(
            f"W&B ({server.url}) has no sweep {given}, or this account may not see it. "
            "Its page's address, or entity/project/id, names one in another project."
        ) from error
    return yaml.safe_dump(redact_values(config, environment=False), sort_keys=False, allow_unicode=True)


@contextmanager
def _scratch() -> Iterator[None]:
    """Keep the folders that the client makes for the runs it lists away from the user's."""
    before = os.environ.get("WANDB_DIR")
    with tempfile.TemporaryDirectory(prefix="finetune-wandb-", ignore_cleanup_errors=True) as name:
        os.environ["WANDB_DIR"] = name
        try:
            yield
        finally:
            del os.environ["WANDB_DIR"]
            if before is not None:
                os.environ["WANDB_DIR"] = before


def _entity(server: Server) -> str:
    """Return the account's own entity, unless the user has set another.

    Raises:
        FetchError: it has none.
    """
    entity = server.api.settings.get("entity") or server.ask(lambda: server.api.default_entity)
    if not entity:
        raise FetchError("This W&B account has no default entity. Name the sweep as entity/project/id.")
    return str(entity)


def _calls_a_minute() -> float:
    """Return the limit that the user has set, or the usual one.

    Raises:
        FetchError: it is no number above 0.
    """
    given = os.environ.get(CALLS_VARIABLE)
    try:
        value = float(given) if given else CALLS_A_MINUTE
    except ValueError:
        value = 0
    if not value > 0:
        raise FetchError(f"{CALLS_VARIABLE} is {given!r}, not a number above 0, such as {CALLS_A_MINUTE:g}.")
    return value

"""Finds the folder of run directories that the user names; fetches a W&B sweep into one first."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from analysis.errors import InputError
from analysis.sources.wandb import client
from analysis.sources.wandb.client import Server
from analysis.sources.wandb.errors import FetchError, NoLoginError, NoSweepError
from analysis.sources.wandb.sync import SyncProgress, SyncResult, sync_runs
from finetune.rundir.files import find_runs
from finetune.rundir.find import find_sweeps, last_change
from finetune.rundir.keys import CONFIG, SWEEP
from finetune.tracking.mirror_client import is_off
from finetune.tracking.sweep_address import SweepAddress, default_project, folder_address, parse_sweep_address


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _no_progress(items: Iterable[Any], _: int) -> Iterable[Any]:
    return items


def find_folder(
    argument: str | None,
    runs_root: Path = Path("runs"),
    *,
    show_progress: SyncProgress = _no_progress,
    report: Callable[[str], None] = _print_to_stderr,
) -> Path:
    """Return the folder that holds the run directories.

    Asks the W&B server only for the address of a sweep and for the newest sweep, never for a path. If the server does
    not answer, runs that were fetched before are used.

    Args:
        argument: a sweep folder or one run directory, the name of a folder below `runs_root`, a sweep file that has
            been run, a W&B sweep (see `parse_sweep_address`), or None for the newest sweep.
        show_progress: wraps the runs that are fetched; takes them and their number.
        report: called with a line on where the sweep was found, and with faults that do not stop the analysis.

    Raises:
        InputError: there is no such folder, or it holds no runs.
    """
    finder = _Finder(runs_root, show_progress, report)
    return finder.newest() if argument is None else finder.named(argument)


@dataclass(frozen=True)
class _Finder:
    """Finds sweeps below `runs_root` and on the W&B server; see `find_folder`."""

    runs_root: Path
    show_progress: SyncProgress
    report: Callable[[str], None]

    def named(self, argument: str) -> Path:
        path = Path(argument)
        if path.is_dir():
            return self._checked(path)
        if path.is_file():
            return self._of_sweep_file(path)
        address = parse_sweep_address(argument)
        if "://" in argument and address is None:
            raise InputError(f"{argument} is not the address of a sweep, which ends in /entity/project/sweeps/id.")
        is_below_root = len(path.parts) > 1 and Path(path.parts[0]) == self.runs_root
        if address is not None and not is_below_root:
            folder = self._folder_of(address)
            is_local = address.project is None and folder.is_dir() and folder_address(folder) is None
            if not is_local:  # an id may also be the name of a folder of runs that are not on W&B
                return self._fetch(address, folder, page=argument)
        for name in (argument, path.name):  # the second: runs of entity/project/id by local agents
            if (self.runs_root / name).is_dir():
                return self._checked(self.runs_root / name)
        guess = self._guess(path.stem)
        raise InputError(
            f"{argument}: no such folder, sweep file or sweep below {self.runs_root}/.{guess}{self._local_sweeps()}"
        )

    def newest(self) -> Path:
        """Return the sweep in which a run last started, made progress or ended, on this machine or on W&B."""
        local = max(find_sweeps(self.runs_root), key=last_change, default=None)
        server, address = self._newest_on_server(local)
        if server is not None and address is not None:
            return self._fetch(address, self._folder_of(address), server=server)
        if local is None:
            raise InputError(
                f"{self.runs_root}/ holds no runs yet.\n"
                "  Run a sweep first (make agents for the one you made with wandb sweep, "
                "or python agent.py sweeps/demo.yaml), or name the folder that holds the runs."
            )
        self.report(f"The newest sweep is {local}.")
        return local

    def _newest_on_server(self, local: Path | None) -> tuple[Server | None, SweepAddress | None]:
        """Return the W&B sweep that is newer than `local`, else the W&B sweep that `local` belongs to, if any.

        Silent if nobody is logged in; waits only seconds for a server that does not answer.
        """
        if is_off() or not client.may_be_logged_in():
            return None, None
        address = folder_address(local) if local is not None else None
        try:
            server = client.connect(is_brief=True)
            found = client.newest_sweep(server, (address and address.project) or default_project())
        except NoLoginError:
            return None, None
        except FetchError as error:
            self.report(f"{error} Taking the newest sweep on this machine.")
            return None, None
        if found is not None and (local is None or found[1] > last_change(local)):
            return server, found[0]
        return server, address

    def _checked(self, folder: Path) -> Path:
        """Return `folder`, or raise InputError if it holds no runs."""
        if find_runs(folder):
            return folder
        if sweeps := find_sweeps(folder):
            names = ", ".join(map(str, sweeps))
            raise InputError(f"{folder} holds sweeps, not runs. Name one of them: {names}")
        raise InputError(f"{folder} holds no run that has started (no */{CONFIG}).{self._local_sweeps()}")

    def _of_sweep_file(self, file: Path) -> Path:
        """Return the folder of the runs that a sweep file made."""
        if file.suffix not in (".yaml", ".yml"):
            raise InputError(f"{file} is neither a folder of runs nor a sweep file (*.yaml).{self._local_sweeps()}")
        if file.name == SWEEP and find_runs(file.parent):  # the copy beside its runs
            return file.parent
        folder = self.runs_root / file.stem
        if not folder.is_dir():
            raise InputError(
                f"{file} has left no runs in {folder}/.\n"
                f"  Run it first (python agent.py {file}), or name the folder its runs are in. "
                f"If it was run on W&B, name that sweep: its id, or nothing for the newest.{self._local_sweeps()}"
            )
        return self._checked(folder)

    def _folder_of(self, address: SweepAddress) -> Path:
        """Return the folder of a W&B sweep's runs, whether it exists or not."""
        existing = (folder for folder in find_sweeps(self.runs_root) if _agree(folder_address(folder), address))
        return next(existing, self.runs_root / address.id)

    def _fetch(self, address: SweepAddress, folder: Path, *, page: str = "", server: Server | None = None) -> Path:
        """Fetch the missing runs of a W&B sweep into `folder` and return it; without the server, use what is there.

        Args:
            page: the sweep as the user named it, which may be a URL.
            server: an earlier connection.

        Raises:
            InputError: none of its runs is available.
        """
        try:
            server = client.connect(server or client.connect(is_brief=True))
            noted = folder_address(folder)
            address = client.complete_address(server, noted if noted and _agree(noted, address) else address)
            result = sync_runs(server, address, folder, self.show_progress)
        except FetchError as error:
            if not (_may_hold(folder, address) and find_runs(folder)):
                raise InputError(self._fetch_failure(error, address, folder, _wrong_host(page, server))) from error
            self.report(f"{error} Taking what is in {folder}.")
            return folder
        for fault in result.faults:
            self.report(f"not fetched: {fault}")
        if not result.runs and not _may_hold(folder, address):
            raise InputError(f"The W&B sweep {address} on {server.url} has no runs yet.")
        self.report(f"{folder}: W&B sweep {address} on {server.url}, {_describe(result)}.")
        return self._checked(folder)

    def _fetch_failure(self, error: FetchError, address: SweepAddress, folder: Path, wrong_host: str) -> str:
        lines = [f"{error}{wrong_host}", f"No runs of {address} are on this machine.{self._guess(address.id)}"]
        if not isinstance(error, NoSweepError):
            copy = f"copy its run directories from the machine that ran them to {folder}/."
            lines += [error.advice, f"Or {copy}"] if error.advice else [f"To have them here: {copy}"]
        return "\n  ".join(lines) + self._local_sweeps()

    def _guess(self, name: str) -> str:
        """Return a question for the local sweep with the most similar name, or ""."""
        near = get_close_matches(name, [path.name for path in find_sweeps(self.runs_root)], n=1)
        return f" Did you mean {near[0]!r}?" if near else ""

    def _local_sweeps(self) -> str:
        """Return a line that lists the sweeps below `runs_root`, or ""."""
        names = [path.name for path in find_sweeps(self.runs_root)]
        return f"\n  Sweeps below {self.runs_root}/: {', '.join(names)}" if names else ""


def _agree(address: SweepAddress | None, other: SweepAddress) -> bool:
    """Whether two addresses are of the same sweep; a missing entity or project agrees with any."""
    if address is None or address.id != other.id:
        return False
    pairs = ((address.entity, other.entity), (address.project, other.project))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _may_hold(folder: Path, address: SweepAddress) -> bool:
    """Whether a folder exists and does not belong to another W&B sweep."""
    noted = folder_address(folder)
    return folder.is_dir() and (noted is None or _agree(noted, address))


def _describe(result: SyncResult) -> str:
    if not result.fetched and not result.faults:
        return f"{result.runs} run{'' if result.runs == 1 else 's'}, nothing new"
    others = ", the others were here" if result.fetched < result.runs and not result.faults else ""
    return f"{result.fetched} of its {result.runs} runs fetched now{others}"


def _wrong_host(page: str, server: Server | None) -> str:
    """Return a sentence if a page's address is not on the server, else ""."""
    host = urlsplit(page).netloc if "://" in page else ""
    if not host or server is None or host in (urlsplit(server.url).netloc, urlsplit(server.page).netloc):
        return ""
    return f" The address is on {host}: set WANDB_BASE_URL for it."

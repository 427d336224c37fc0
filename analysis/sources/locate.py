"""Which folder of run directories the user means; a sweep on a W&B server is brought into one first."""

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from analysis.errors import InputError
from analysis.sources.wandb import address, client
from analysis.sources.wandb.address import Address
from analysis.sources.wandb.client import Server
from analysis.sources.wandb.errors import FetchError, NoLoginError, NoSweepError
from analysis.sources.wandb.sync import SyncProgress, SyncResult, sync_runs
from finetune.rundir.files import find_runs
from finetune.rundir.keys import CONFIG, HISTORY, SUMMARY, SWEEP

Say = Callable[[str], None]


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def _unwatched(what: Iterable[Any], _: int) -> Iterable[Any]:
    return what


def find_folder(
    argument: str | None, runs_root: Path = Path("runs"), *, watch: SyncProgress = _unwatched, say: Say = _print
) -> Path:
    """Return the folder that holds the run directories.

    A server is asked for a sweep that is named as W&B names it, and for the newest sweep; what is on this machine
    serves where it does not answer. A path never leads to a request.

    Args:
        argument: a sweep folder or one run directory, the name of a folder below `runs_root`, a sweep file that has
            been run, a W&B sweep (id, project/id, entity/project/id, or its address in a browser), or None for the
            newest sweep.
        watch: wraps the runs that are fetched, with their number, to show progress.
        say: is told in a line which sweep was taken from where, and of faults that do not matter.

    Raises:
        InputError: there is no such folder, or it holds no runs.
    """
    if argument is None:
        return _newest(runs_root, watch, say)
    given = Path(argument)
    if given.is_dir():
        return _with_runs(given, runs_root)
    if given.is_file():
        return _of_sweep_file(given, runs_root)
    remote = address.parse(argument)
    if "://" in argument and remote is None:
        raise InputError(f"{argument} is not the address of a sweep, which ends in /entity/project/sweeps/id.")
    if remote is not None and not _is_path_below(given, runs_root):
        folder = _folder_of(remote, runs_root)
        if not _is_only_here(remote, folder):
            return _fetched(remote, folder, runs_root, watch, say, page=argument)
    for name in (argument, given.name):  # the second: what agents made of entity/project/id
        if (runs_root / name).is_dir():
            return _with_runs(runs_root / name, runs_root)
    raise InputError(_not_found(argument, runs_root))


def sweeps_below(runs_root: Path) -> list[Path]:
    """Return the folders directly below `runs_root` that hold runs, sorted by name."""
    if not runs_root.is_dir():
        return []
    return sorted(folder for folder in runs_root.iterdir() if folder.is_dir() and find_runs(folder))


def _newest(runs_root: Path, watch: SyncProgress, say: Say) -> Path:
    """Return the sweep in which a run last started, made progress or ended, on this machine or on W&B."""
    sweeps = sweeps_below(runs_root)
    local = max(sweeps, key=_last_change) if sweeps else None
    server, remote = _newest_remote(local, say)
    if server is not None and remote is not None:
        return _fetched(remote, _folder_of(remote, runs_root), runs_root, watch, say, before=server)
    if local is None:
        raise InputError(
            f"{runs_root}/ holds no runs yet.\n"
            "  Run a sweep first (make agents for the one you made with wandb sweep, "
            "or python agent.py sweeps/demo.yaml), or name the folder that holds the runs."
        )
    say(f"The newest sweep is {local}.")
    return local


def _newest_remote(local: Path | None, say: Say) -> tuple[Server | None, Address | None]:
    """Return the W&B sweep to fetch because it is the newest, or because the newest one here belongs to it, if any.

    Somebody who is not logged in is not told of it, and a server that does not answer costs some seconds.
    """
    if client.is_switched_off() or not client.may_be_logged_in():
        return None, None
    belongs_to = address.of_folder(local) if local is not None else None
    try:
        server = client.connect(is_brief=True)
        project = belongs_to.project if belongs_to else None
        found = client.newest_sweep(server, project or address.default_project())
    except NoLoginError:
        return None, None
    except FetchError as error:
        say(f"{error} Taking the newest sweep on this machine.")
        return None, None
    if found is not None and (local is None or found[1] > _last_change(local)):
        return server, found[0]
    return server, belongs_to


def _last_change(sweep: Path) -> float:
    """Return the time of the last change in a sweep, in seconds since the epoch."""
    files = [run / name for run in find_runs(sweep) for name in (CONFIG, HISTORY, SUMMARY)]
    return max(file.stat().st_mtime for file in files if file.exists())


def _with_runs(folder: Path, runs_root: Path) -> Path:
    """Return `folder` if it holds runs, else say what it holds."""
    if find_runs(folder):
        return folder
    inner = sweeps_below(folder)
    if inner:
        names = ", ".join(str(path) for path in inner)
        raise InputError(f"{folder} holds sweeps, not runs. Name one of them: {names}")
    raise InputError(f"{folder} holds no run that has started (no */{CONFIG}).{_known(runs_root)}")


def _of_sweep_file(file: Path, runs_root: Path) -> Path:
    """Return the folder of the runs that a sweep file made."""
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file} is neither a folder of runs nor a sweep file (*.yaml).{_known(runs_root)}")
    if file.name == SWEEP and find_runs(file.parent):  # the copy that lies beside its runs
        return file.parent
    folder = runs_root / file.stem
    if not folder.is_dir():
        raise InputError(
            f"{file} has left no runs in {folder}/.\n"
            f"  Run it first (python agent.py {file}), or name the folder its runs are in. "
            f"If it was run on W&B, name that sweep: its id, or nothing for the newest.{_known(runs_root)}"
        )
    return _with_runs(folder, runs_root)


def _is_path_below(given: Path, runs_root: Path) -> bool:
    """Whether `given` begins as a path below `runs_root` does, though it leads nowhere."""
    return len(given.parts) > 1 and Path(given.parts[0]) == runs_root


def _folder_of(remote: Address, runs_root: Path) -> Path:
    """Return where the runs of a W&B sweep lie, or shall lie: the folder that says so, else one by the sweep's id."""
    known = [folder for folder in sweeps_below(runs_root) if _agree(address.of_folder(folder), remote)]
    return known[0] if known else runs_root / remote.sweep


def _is_only_here(remote: Address, folder: Path) -> bool:
    """Whether eight letters name a folder of runs that no W&B sweep is known of."""
    return remote.project is None and folder.is_dir() and address.of_folder(folder) is None


def _agree(one: Address | None, other: Address) -> bool:
    """Whether two addresses are of the same sweep, as far as both tell."""
    if one is None or one.sweep != other.sweep:
        return False
    pairs = ((one.entity, other.entity), (one.project, other.project))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _fetched(
    remote: Address,
    folder: Path,
    runs_root: Path,
    watch: SyncProgress,
    say: Say,
    *,
    page: str = "",
    before: Server | None = None,
) -> Path:
    """Bring a W&B sweep here, as far as it is not, and return its folder; without the server, what is here serves.

    Args:
        page: what the user has called the sweep, which may be its address in a browser.
        before: an earlier connection.

    Raises:
        InputError: none of its runs are to be had.
    """
    server = before
    try:
        server = client.connect(before or client.connect(is_brief=True))
        known = address.of_folder(folder)
        remote = client.complete_address(server, known if known and _agree(known, remote) else remote)
        pulled = sync_runs(server, remote, folder, watch)
    except FetchError as error:
        if not (_is_of(folder, remote) and find_runs(folder)):
            lines = [f"{error}{_elsewhere(page, server)}", f"No runs of {remote} are on this machine."]
            lines[-1] += _guess(remote.sweep, runs_root)
            if not isinstance(error, NoSweepError):
                copy = f"copy its run directories from the machine that ran them to {folder}/."
                lines += [error.how, f"Or {copy}"] if error.how else [f"To have them here: {copy}"]
            raise InputError("\n  ".join(lines) + _known(runs_root)) from error
        say(f"{error} Taking what is in {folder}.")
        return folder
    for fault in pulled.faults:
        say(f"not fetched: {fault}")
    if not pulled.runs and not _is_of(folder, remote):
        raise InputError(f"The W&B sweep {remote} on {server.url} has no runs yet.")
    say(f"{folder}: W&B sweep {remote} on {server.url}, {_did(pulled)}.")
    return _with_runs(folder, runs_root)


def _is_of(folder: Path, remote: Address) -> bool:
    """Whether a folder is there, and not another W&B sweep's."""
    known = address.of_folder(folder)
    return folder.is_dir() and (known is None or _agree(known, remote))


def _did(pulled: SyncResult) -> str:
    """Return what a pull did, in words."""
    if not pulled.fetched and not pulled.faults:
        return f"{pulled.runs} run{'' if pulled.runs == 1 else 's'}, nothing new"
    others = ", the others were here" if pulled.fetched < pulled.runs and not pulled.faults else ""
    return f"{pulled.fetched} of its {pulled.runs} runs fetched now{others}"


def _elsewhere(page: str, server: Server | None) -> str:
    """Return a sentence if a page's address is not on the server, else nothing."""
    host = urlsplit(page).netloc if "://" in page else ""
    if not host or server is None or host in (urlsplit(server.url).netloc, urlsplit(server.page).netloc):
        return ""
    return f" The address is on {host}: set WANDB_BASE_URL for it."


def _not_found(argument: str, runs_root: Path) -> str:
    """Return the message for a name that is neither a path nor a sweep."""
    guess = _guess(Path(argument).stem, runs_root)
    return f"{argument}: no such folder, sweep file or sweep below {runs_root}/.{guess}{_known(runs_root)}"


def _guess(name: str, runs_root: Path) -> str:
    """Return a question for the sweep here with the most similar name, or nothing."""
    near = get_close_matches(name, [path.name for path in sweeps_below(runs_root)], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _known(runs_root: Path) -> str:
    """Return a line that lists the sweeps there are, or nothing."""
    names = [path.name for path in sweeps_below(runs_root)]
    return f"\n  Sweeps below {runs_root}/: {', '.join(names)}" if names else ""

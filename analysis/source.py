"""Which folder of run directories the user means."""

import re
from difflib import get_close_matches
from pathlib import Path

from analysis.errors import InputError
from finetune.record import CONFIG, HISTORY, SUMMARY, SWEEP, find_runs

WANDB_PATH = re.compile(r"^[\w.-]+/[\w.-]+/[\w-]+$")


def find_folder(argument: str | None, runs_root: Path = Path("runs")) -> Path:
    """Return the folder that holds the run directories.

    Args:
        argument: a sweep folder or one run directory, the name of a folder below `runs_root`, a sweep file that has
            been run, or None for the newest sweep.

    Raises:
        InputError: there is no such folder, or it holds no runs.
    """
    if argument is None:
        return _newest(runs_root)
    given = Path(argument)
    if given.is_dir():
        return _with_runs(given, runs_root)
    if given.is_file():
        return _of_sweep_file(given, runs_root)
    for name in (argument, given.name):  # the second: what agents made of entity/project/id
        if (runs_root / name).is_dir():
            return _with_runs(runs_root / name, runs_root)
    raise InputError(_not_found(argument, runs_root))


def sweeps_below(runs_root: Path) -> list[Path]:
    """Return the folders directly below `runs_root` that hold runs, sorted by name."""
    if not runs_root.is_dir():
        return []
    return sorted(folder for folder in runs_root.iterdir() if folder.is_dir() and find_runs(folder))


def _newest(runs_root: Path) -> Path:
    """Return the sweep in which a run last started, made progress or ended."""
    sweeps = sweeps_below(runs_root)
    if not sweeps:
        raise InputError(
            f"{runs_root}/ holds no runs yet.\n"
            "  Run a sweep first (python agent.py sweeps/demo.yaml), or name the folder that holds the runs."
        )
    return max(sweeps, key=_last_change)


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
            f"  Run it first (python agent.py {file}), or name the folder its runs are in.{_known(runs_root)}"
        )
    return _with_runs(folder, runs_root)


def _not_found(argument: str, runs_root: Path) -> str:
    """Return the message for a name that is neither a path nor a sweep."""
    if WANDB_PATH.match(argument) and Path(argument).suffix not in (".yaml", ".yml"):
        return (
            f"{argument} reads like a W&B sweep (entity/project/id), but none of its runs are on this machine.\n"
            f"  Only run directories are read: copy them here, below {runs_root}/{Path(argument).name}/, "
            f"or name a folder that holds runs.{_known(runs_root)}"
        )
    names = [path.name for path in sweeps_below(runs_root)]
    near = get_close_matches(Path(argument).stem, names, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{argument}: no such folder, sweep file or sweep below {runs_root}/.{guess}{_known(runs_root)}"


def _known(runs_root: Path) -> str:
    """Return a line that lists the sweeps there are, or nothing."""
    names = [path.name for path in sweeps_below(runs_root)]
    return f"\n  Sweeps below {runs_root}/: {', '.join(names)}" if names else ""

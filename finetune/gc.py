"""Frees disk space: `python -m finetune.gc [RUNS] [--budget 10GB] [--dry-run]`.

Deletes in this order, until RUNS and the caches together fit into the budget:

    damaged       quarantined files, and temporary files of killed processes
    unretained    weights that a run killed at its very end had still to delete, by its field `keep`
    caches        what can be computed again, the longest unused first
    last.pt       of finished runs, and their checkpoints of single epochs
    best.pt       of finished runs that are not the best of their recipe on val, then not of their strategy

Without a budget, the first two only. Configs, histories, predictions and summaries always stay; so do all files of runs
that are unfinished, failed or alive, and of runs that a report names.
"""

import argparse
import contextlib
import itertools
import re
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.cache import store
from finetune.errors import EXIT_FAILED, UserError
from finetune.resolve import recipe_key
from finetune.rundir import claim, files, keys, retention
from finetune.rundir.find import REPORTS, RUNS, runs_in_reports
from finetune.system import documents
from finetune.system.atomic import format_bytes, tree_bytes
from finetune.system.output import command, count_text

OLD_SECONDS = 3600.0  # a younger temporary file may still be written
DAMAGED = "*.damaged*"
# Of `replacing`, and the probes and drafts of claims that earlier versions wrote.
TEMPORARY = re.compile(r"\.(.+\.[0-9a-f]{8}\.tmp|[0-9a-f]{8}\.tmp|claim-[0-9a-f]{8}|probe-[0-9a-f]{8})")
UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


class Deletable(NamedTuple):
    """A file or folder that can be deleted, its size in bytes, and the reason."""

    path: Path
    size: int
    why: str


class FinishedRun(NamedTuple):
    """A finished run that is not alive."""

    folder: Path
    config: dict[str, Any]
    score: tuple[float, float]  # on val: accuracy and negative loss, the higher the better


@command
def main(arguments: list[str]) -> int:
    """Delete, or print what would be deleted, and return the exit code: 1 if more than the budget remains."""
    parser = argparse.ArgumentParser("python -m finetune.gc", description="Free disk space, least needed files first.")
    runs_help = f"folder with run directories (default: {RUNS})"
    parser.add_argument("runs", nargs="?", type=Path, default=RUNS, help=runs_help)
    parser.add_argument("--budget", metavar="SIZE", help="total size of runs and caches to reach, such as 10GB")
    parser.add_argument("--reports", type=Path, default=REPORTS, help=f"folder of reports (default: {REPORTS})")
    parser.add_argument("--dry-run", action="store_true", help="print what would be deleted, and delete nothing")
    args = parser.parse_args(arguments)
    budget = None if args.budget is None else parse_size(args.budget)
    if not args.runs.is_dir():
        raise UserError(f"{args.runs}: no such folder")
    return collect(args.runs, args.reports, budget, args.dry_run)


def parse_size(text: str) -> float:
    """Return the bytes of a size such as `10GB`, `500 MB` or `0`.

    Raises:
        UserError: the text is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text.lower())
    if match is None:
        raise UserError(f"--budget: {text!r} is no size; give one such as 10GB or 500MB")
    return float(match[1]) * UNITS[match[2]]


def collect(runs: Path, reports: Path, budget: float | None, dry_run: bool) -> int:
    """Delete until the budget is reached, print what is deleted and what stays, and return the exit code."""
    total = tree_bytes(runs) + store.used_bytes()
    of_budget = "" if budget is None else f" of {format_bytes(budget)}"
    print(f"{runs}/ and the caches take {format_bytes(total)}{of_budget}")
    named = runs_in_reports(reports)
    folders = sorted(path.parent for path in runs.rglob(keys.CONFIG))
    live = {folder for folder in folders if claim.is_alive(folder)}
    finished = [run for folder in folders if folder not in live and (run := _finished(folder)) is not None]
    found: Iterable[Deletable] = itertools.chain(damaged(runs, live), unretained_checkpoints(finished, named))
    if budget is not None:
        found = itertools.chain(found, caches(), weights(finished, named))
    freed, gone = 0, set[Path]()
    for path, size, why in found:
        if budget is not None and total - freed <= budget:
            break
        if path in gone:
            continue
        freed += size
        gone.add(path)
        print(f"{'would free' if dry_run else 'frees'} {format_bytes(size):>7}  {path}  ({why})")
        if not dry_run:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    _print_kept(live, "that are alive")
    _print_kept({folder for folder in folders if folder.name in named}, "named in a report")
    print(f"{'would free' if dry_run else 'freed'} {format_bytes(freed)}; {format_bytes(total - freed)} stay")
    if budget is not None and total - freed > budget:
        print("that is more than the budget: only results and weights that are still needed are left", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _print_kept(folders: set[Path], why: str) -> None:
    if folders:
        names = ", ".join(folder.name for folder in sorted(folders)[:3]) + (", ..." if len(folders) > 3 else "")
        print(f"keeps all of {count_text(len(folders), 'run')} {why}: {names}")


def damaged(runs: Path, live: set[Path]) -> Iterator[Deletable]:
    """Yield quarantined files and old temporary files."""
    for path in sorted(runs.rglob("*")):
        if path.is_symlink() or not path.is_file() or live & set(path.parents):
            continue
        if path.match(DAMAGED):
            yield from _file(path, "quarantined as damaged")
        elif TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > OLD_SECONDS:
                    yield from _file(path, "half-written by a process that was killed")


def unretained_checkpoints(finished: Iterable[FinishedRun], named: set[str]) -> Iterator[Deletable]:
    """Yield checkpoints that finished runs do not keep: deleting them is the last thing a run does."""
    for run in finished:
        keep = run.config.get("keep")
        if keep in retention.KEPT_FILES and run.folder.name not in named:
            for name in {keys.LAST, keys.BEST} - set(retention.KEPT_FILES[keep]):
                yield from _file(run.folder / name, f"of a finished run with keep: {keep}")


def caches() -> Iterator[Deletable]:
    """Yield cache entries that nobody reads or fills, the longest unused first."""
    for path in store.evictable():
        yield Deletable(path, tree_bytes(path), "cache, can be computed again")


def weights(finished: Sequence[FinishedRun], named: set[str]) -> Iterator[Deletable]:
    """Yield checkpoints of finished runs: those beside best.pt, then best.pt of runs that are not the best."""
    free = [run for run in finished if run.folder.name not in named]
    for run in free:
        for path in (run.folder / keys.LAST, run.folder / keys.PREVIOUS, *retention.epoch_files(run.folder)):
            yield from _file(path, "of a finished run")
    best_of_recipe = _best(finished, _recipe)
    best_of_strategy = _best(finished, lambda run: (run.folder.parent, run.config.get("strategy")))
    for kept, group in ((best_of_recipe, "recipe"), (best_of_strategy, "strategy")):
        for run in sorted(free, key=lambda run: run.score):
            if run.folder not in kept:
                yield from _file(run.folder / keys.BEST, f"another run of its {group} is better")


def _file(path: Path, why: str) -> Iterator[Deletable]:
    """Yield a file, unless it is gone: a run that is alive renames files meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        yield Deletable(path, path.stat().st_size, why)


def _finished(folder: Path) -> FinishedRun | None:
    """Return a run if it is finished and can be read; nothing of another one is deleted."""
    try:
        summary, config = documents.read_json(folder / keys.SUMMARY), files.read_config(folder)
        if summary is None:
            return None
        return FinishedRun(folder, config, (float(summary["best/val_accuracy"]), -float(summary["best/val_loss"])))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _recipe(run: FinishedRun) -> tuple[Any, ...]:
    made_from = run.config.get("provenance", {})
    return run.folder.parent, made_from.get("data_fingerprint"), recipe_key(run.config, made_from.get("weights_hash"))


def _best(runs: Iterable[FinishedRun], group: Callable[[FinishedRun], tuple[Any, ...]]) -> set[Path]:
    """Return the folder of the best run on val of each group, among those that have their weights and keep them."""
    groups: defaultdict[tuple[Any, ...], list[FinishedRun]] = defaultdict(list)
    for run in runs:
        if (run.folder / keys.BEST).is_file() and run.config.get("keep") != "none":
            groups[group(run)].append(run)
    return {max(members, key=lambda run: (run.score, run.folder.name)).folder for members in groups.values()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

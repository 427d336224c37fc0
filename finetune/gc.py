"""Makes room: `python -m finetune.gc [RUNS] [--budget 10GB] [--dry-run]`.

Deleted in this order, until what is below RUNS and the caches together take no more than the budget:

    damaged       files set aside as damaged, and what killed processes have left half-written
    unkept        weights that a run killed at its very end was to delete, by its field `keep`
    caches        what can be computed again, the longest unused first
    last.pt       of finished runs, and the checkpoints of single epochs
    best.pt       of finished runs that val does not find the best of their recipe, then of their strategy

Without a budget, the first two of these alone. Configs, histories, predictions and summaries stay in any case; so do
all files of runs that are unfinished, failed or alive, and of those that a report names.
"""

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune.cache import entry_writer, store
from finetune.errors import EXIT_FAILED, UserError
from finetune.resolve import FIELDS_WITHOUT_EFFECT
from finetune.rundir import claim, files, keys, retention
from finetune.system import documents
from finetune.system.atomic import format_bytes
from finetune.system.output import command

RUNS, REPORTS = Path("runs"), Path("reports")
OLD_SECONDS = 3600.0  # a temporary file that was touched since then may be in the making
DAMAGED = "*.damaged*"
# Written beside a file that they take the place of (see replacing), or probes and drafts of claims.
TEMPORARY = re.compile(r"\.(.+\.[0-9a-f]{8}\.tmp|[0-9a-f]{8}\.tmp|claim-[0-9a-f]{8}|probe-[0-9a-f]{8})")
RECIPE_FIELDS_IGNORED = (
    "seed",
    "fold",
    "provenance",
    *FIELDS_WITHOUT_EFFECT,
)  # fields in which the runs of a recipe may differ
UNITS = {"": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


class Deletable(NamedTuple):
    """A file or folder that can go.

    Attributes:
        size: bytes.
        why: it can go, in words.
    """

    path: Path
    size: int
    why: str


class FinishedRun(NamedTuple):
    """A finished run whose weights may go."""

    folder: Path
    config: dict[str, Any]
    val: tuple[float, float]  # accuracy, and the loss with its sign turned: the higher, the better


@command
def main(arguments: list[str]) -> int:
    """Make room, or say what would go, and return the exit code: 1 if the budget can't be kept to."""
    parser = argparse.ArgumentParser("python -m finetune.gc", description="Make room: delete what is needed least.")
    parser.add_argument(
        "runs", nargs="?", type=Path, default=RUNS, help=f"folder with run directories (default: {RUNS})"
    )
    parser.add_argument("--budget", metavar="SIZE", help="what runs and caches may take, such as 10GB")
    parser.add_argument("--reports", type=Path, default=REPORTS, help=f"folder of reports (default: {REPORTS})")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and delete nothing")
    args = parser.parse_args(arguments)
    budget = None if args.budget is None else parse_size(args.budget)
    if not args.runs.is_dir():
        raise UserError(f"{args.runs}: no such folder")
    return collect(args.runs, args.reports, budget, args.dry_run)


def parse_size(text: str) -> float:
    """Return bytes, given such as `10GB`, `500 MB` or `0`.

    Raises:
        UserError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?b?)\s*", text.lower())
    unit = "" if match is None or match[2] == "b" else match[2].removesuffix("b") + "b" if match[2] else ""
    if match is None:
        raise UserError(f"--budget: {text!r} is no size; give one such as 10GB or 500MB")
    return float(match[1]) * UNITS[unit]


def collect(runs: Path, reports: Path, budget: float | None, dry_run: bool) -> int:
    """Delete until the budget is kept to, say what goes and what stays, and return the exit code."""
    total = _size(runs) + store.used_bytes()
    print(
        f"{runs}/ and the caches take {format_bytes(total)}" + ("" if budget is None else f" of {format_bytes(budget)}")
    )
    named = runs_in_reports(reports)
    live = {folder for folder in _folders(runs) if claim.is_alive(folder)}
    finished = [run for folder in _folders(runs) if folder not in live and (run := _finished(folder)) is not None]
    freed, gone = 0, set[Path]()
    of_no_use = (damaged(runs, live), unretained_checkpoints(finished, named))
    for step in (*of_no_use, *(() if budget is None else (caches(), *weights(finished, named)))):
        for piece in step:
            if budget is not None and total - freed <= budget:
                break
            if piece.path in gone:
                continue
            freed += piece.size
            gone.add(piece.path)
            print(f"{'would free' if dry_run else 'frees'} {format_bytes(piece.size):>7}  {piece.path}  ({piece.why})")
            if not dry_run:
                entry_writer.delete_entry([piece.path]) if piece.path.is_dir() else piece.path.unlink(missing_ok=True)
    kept = [
        (live, "are alive"),
        ({folder for folder in _folders(runs) if folder.name in named}, "are named in a report"),
    ]
    for folders, why in kept:
        if folders:
            names = ", ".join(sorted(folder.name for folder in folders)[:3]) + (", ..." if len(folders) > 3 else "")
            print(f"keeps all of {len(folders)} run{'s' * (len(folders) > 1)} that {why}: {names}")
    print(f"{'would free' if dry_run else 'freed'} {format_bytes(freed)}; {format_bytes(total - freed)} stay")
    if budget is not None and total - freed > budget:
        print(
            "that is more than the budget: what is left is results, and weights that are still of use", file=sys.stderr
        )
        return EXIT_FAILED
    return 0


def damaged(runs: Path, live: set[Path]) -> Iterator[Deletable]:
    """Yield what is of no use to anybody."""
    for path in sorted(runs.rglob("*")):
        if path.is_symlink() or not path.is_file() or live & set(path.parents):
            continue
        if path.match(DAMAGED):
            yield Deletable(path, path.stat().st_size, "set aside as damaged")
        elif TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime > OLD_SECONDS:
            yield Deletable(path, path.stat().st_size, "half-written by a process that was killed")


def unretained_checkpoints(finished: Iterable[FinishedRun], named: set[str]) -> Iterator[Deletable]:
    """Yield the checkpoints that runs delete as the last thing they do, where that was not reached."""
    for run in finished:
        keep = run.config.get("keep")
        if keep not in retention.KEPT_FILES or run.folder.name in named:
            continue
        for path in (run.folder / keys.LAST, run.folder / keys.BEST):
            if path.name not in retention.KEPT_FILES[keep] and path.is_file():
                yield Deletable(path, path.stat().st_size, f"of a finished run with keep: {keep}")


def caches() -> Iterator[Deletable]:
    """Yield what can be computed again and nobody reads or fills, the longest unused first."""
    for path in store.evictable():
        yield Deletable(path, _size(path), "cache, can be computed again")


def weights(finished: Sequence[FinishedRun], named: set[str]) -> tuple[Iterable[Deletable], Iterable[Deletable]]:
    """Return the checkpoints that can go: those beside best.pt, and best.pt of runs that others outdo."""
    free = [run for run in finished if run.folder.name not in named]
    beside = [
        Deletable(path, path.stat().st_size, "of a finished run")
        for run in free
        for path in (run.folder / keys.LAST, run.folder / keys.PREVIOUS, *retention.epoch_files(run.folder))
        if path.is_file()
    ]
    best_of_recipe, best_of_strategy = _best(finished, _recipe), _best(finished, _strategy)
    worse = [run for run in free if run.folder not in best_of_recipe]
    then = [run for run in free if run.folder in best_of_recipe - best_of_strategy]
    outdone = [
        Deletable(
            run.folder / keys.BEST, (run.folder / keys.BEST).stat().st_size, f"another run of its {what} is better"
        )
        for runs, what in ((worse, "recipe"), (then, "strategy"))
        for run in sorted(runs, key=lambda run: run.val)
        if (run.folder / keys.BEST).is_file()
    ]
    return beside, outdone


def runs_in_reports(reports: Path) -> set[str]:
    """Return the names of all runs that reports name, as `best_run` or anywhere else in a report.json.

    Raises:
        UserError: a report can't be read, and so what it names is not known.
    """
    names: set[str] = set()
    for path in sorted(reports.glob("**/report.json")):
        try:
            names.update(_strings(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read ({error}): make the report again, or delete it") from error
    return names


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield Path(value).name  # a path to a run names it too
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _folders(runs: Path) -> list[Path]:
    """Return the run directories below a folder, at any depth."""
    return sorted(path.parent for path in runs.rglob(keys.CONFIG))


def _finished(folder: Path) -> FinishedRun | None:
    """Return a run if it is finished and can be read; of another, nothing goes."""
    try:
        summary, config = documents.read_json(folder / keys.SUMMARY), files.read_config(folder)
        if summary is None:
            return None
        return FinishedRun(folder, config, (float(summary["best/val_accuracy"]), -float(summary["best/val_loss"])))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _recipe(run: FinishedRun) -> str:
    fields = {name: value for name, value in run.config.items() if name not in RECIPE_FIELDS_IGNORED}
    return json.dumps([str(run.folder.parent), fields], sort_keys=True, default=str)


def _strategy(run: FinishedRun) -> str:
    return json.dumps([str(run.folder.parent), run.config.get("strategy")])


def _best(runs: Iterable[FinishedRun], group: Any) -> set[Path]:
    """Return the folder of the run of each group that val prefers, among those that have their weights."""
    groups: defaultdict[str, list[FinishedRun]] = defaultdict(list)
    for run in runs:
        if (run.folder / keys.BEST).is_file():
            groups[group(run)].append(run)
    return {max(some, key=lambda run: (run.val, run.folder.name)).folder for some in groups.values()}


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

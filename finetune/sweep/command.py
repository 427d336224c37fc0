"""The command line of `agent.py`: its flags, and the settings that they stand for."""

import argparse
from collections.abc import Callable, Sequence
from typing import get_args

from finetune.config import MAX_FOLDS, Keep

EXAMPLES = """examples:
  python agent.py sweeps/strategies.yaml --set data=path/to/images --plan       what would run, and for how long
  python agent.py sweeps/strategies.yaml --set data=path/to/images --agents 2   run it; again: continue it
  python agent.py entity/project/id                                             a sweep on a W&B server

docs/sweeps.md explains sweeps, docs/configuration.md every KEY."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags' values; `settings` holds all KEY=VALUE that --folds, --keep and --set ask for."""
    parser = argparse.ArgumentParser(
        prog="agent.py", description="Run the remaining runs of a sweep.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "sweep", nargs="?", metavar="SWEEP",
        help="a sweep file, or the folder runs/NAME of an earlier sweep (no account needed); or a sweep on a W&B "
        "server, by its id, entity/project/id or address (default: the newest unfinished one, on the server if you are "
        "logged in)",
    )  # fmt: skip
    add = parser.add_argument_group("look first").add_argument
    add(
        "--plan", action="store_true",
        help="print the runs that would be started, their time and disk space, and stop; exit code 1: the disk is too "
        "full",
    )  # fmt: skip
    add(
        "--check", action="store_true",
        help="check the sweep file, and stop; data and weights may be on other machines",
    )  # fmt: skip
    add("--fetch", action="store_true", help="download the data and weights that the sweep needs, and stop")
    add = parser.add_argument_group("change the sweep (of a file)").add_argument
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="replace a parameter; a list sweeps over its values: --set 'lr=[1e-3,3e-3]'",
    )  # fmt: skip
    add("--name", metavar="NAME", help="write to runs/NAME (default: the file's name)")
    add(
        "--folds", type=_fold_count, metavar="K",
        help="cross-validation: run each recipe on K folds (short for --set folds=K --set 'fold=[0,...,K-1]')",
    )  # fmt: skip
    add(
        "--keep", choices=get_args(Keep),
        help="weights that a finished run keeps (short for --set keep=...; default: best_last)",
    )  # fmt: skip
    add(
        "--race", action=argparse.BooleanOptionalAction,
        help="further seeds and folds only for the recipe of each arm with the best val accuracy at the first",
    )  # fmt: skip
    add = parser.add_argument_group("run it").add_argument
    add("--agents", type=_at_least(1), metavar="N", help="runs side by side (default: one per GPU, else 1)")
    add("--count", type=_at_least(1), metavar="N", help="start at most N runs; ends a search without run_cap")
    add("--retry-failed", action="store_true", help="start failed runs again")
    add(
        "--max-failures", type=_at_least(0), default=5, metavar="N",
        help="give up after N failures in a row (default: 5; 0: never)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    args.settings = _settings(args)
    return args


def _settings(args: argparse.Namespace) -> list[str]:
    """Return all KEY=VALUE, --set last: it may choose among the folds."""
    folds = [] if args.folds is None else [f"folds={args.folds}", f"fold={list(range(args.folds))}"]
    keep = [] if args.keep is None else [f"keep={args.keep}"]
    return [*folds, *keep, *args.set]


def _at_least(minimum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `minimum` on, for argparse."""

    def parse_number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text} is not at least {minimum}")
        return int(text)

    return parse_number


def _fold_count(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= MAX_FOLDS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of folds: cross-validation takes 2 to {MAX_FOLDS}")
    return int(text)

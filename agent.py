"""Run a sweep: `python agent.py sweeps/strategies.yaml --agents 2`, or one on a W&B server by its id. See `--help`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import get_args

from finetune.config import MAX_FOLDS, Keep
from finetune.errors import EXIT_FAILED, UserError
from finetune.sweep import choose, devices, display
from finetune.sweep.agents import local_agent, wandb_agents, wandb_trial
from finetune.sweep.agents.training_api import REAL, TrainingApi
from finetune.sweep.forecast import report
from finetune.sweep.plan import check_sweep_file, make_plan
from finetune.system import signals
from finetune.system.atomic import WriteError
from finetune.system.output import command
from finetune.system.signals import SIGNALS
from finetune.tracking import sweep_server


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog="agent.py", description="Run what is left of a sweep.")
    sweep_help = (
        "a sweep file, or the folder runs/NAME of an earlier sweep (no account needed); or a sweep on a W&B server, by "
        "its id, entity/project/id or address (default: the newest unfinished one, on the server if you are logged in)"
    )
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help=sweep_help)
    parser.add_argument(
        "--agents", type=count, metavar="N", help="runs side by side (default: one for each GPU, else 1)"
    )
    parser.add_argument("--count", type=count, metavar="N", help="start at most N runs; ends a search without run_cap")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a parameter; a list sweeps"
    )
    parser.add_argument("--retry-failed", action="store_true", help="start those again that failed before")
    parser.add_argument(
        "--max-failures",
        type=limit,
        default=5,
        metavar="N",
        help="give up after N failures in a row (default: 5; 0: never)",
    )
    plan_help = (
        "print the runs that would be started and what they will take, and stop; exit code 1: no room on the disk"
    )
    check_help = "check what the sweep file says, and stop; for `make sweep`: data and weights may lie elsewhere"
    parser.add_argument("--check", action="store_true", help=check_help)
    parser.add_argument("--plan", action="store_true", help=plan_help)
    parser.add_argument(
        "--fetch", action="store_true", help="bring the data and weights that it needs to this machine, and stop"
    )
    folds_help = "cross-validation: run each recipe on K folds (--set folds=K --set fold=[0,...,K-1])"
    parser.add_argument("--folds", type=folds, metavar="K", help=folds_help)
    race_help = "further seeds and folds only for the recipe of each strategy that val prefers at the first (offline)"
    keep_help = "weights that stay of a finished run (default: best_last): --set keep=..., in short"
    parser.add_argument("--keep", choices=get_args(Keep), help=keep_help)
    parser.add_argument("--race", action=argparse.BooleanOptionalAction, help=race_help)
    parser.add_argument("--name", metavar="NAME", help="write to runs/NAME (default: the file's name)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None, code: TrainingApi = REAL) -> int:
    """Run the command line and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    if wandb_trial.is_trial():  # started by W&B's agent, with a run's config for a command line
        return wandb_trial.run_trial(list(words), code)
    args = parse(words)
    before = {number: signal.signal(number, signals.raise_stopped) for number in SIGNALS}
    try:
        sweep = choose.choose(args.sweep, settings(args), args.name)
        if sweep is None:
            return 0
        if isinstance(sweep, sweep_server.WandbSweep):
            if args.race:
                raise UserError("--race is for sweeps that run here: W&B's server hands out all runs of a sweep")
            if args.check:
                raise UserError(f"{args.sweep} is on the W&B server already: --check is for sweep files")
            if args.plan:
                wandb_agents.show_plan(sweep)
                return 0
            if args.fetch:
                wandb_agents.fetch_sweep(sweep, code)
                return 0
            if args.retry_failed:
                return wandb_agents.retry_failed(sweep, code, args.agents, args.count, args.max_failures)
            return wandb_agents.run_online(sweep, code, args.agents, args.count, args.max_failures)
        if args.check:
            print(check_sweep_file(sweep))
            return 0
        plan = make_plan(
            sweep, args.count, code.identify, args.race, lambda configs: code.bring(configs, not args.plan)
        )
        if args.fetch:
            print(f"{sweep.source}: all that its runs need is on this machine")
            return 0
        agents = args.agents or devices.slots()
        if args.plan:
            display.show_plan(plan)
            expected = local_agent.expect(plan, code, agents, args.count, args.retry_failed)
            if expected is not None:
                report.show(expected)
            return EXIT_FAILED if expected is not None and expected.lacking_bytes else 0
        return local_agent.run_sweep(plan, code, agents, args.count, args.retry_failed, args.max_failures)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except WriteError as error:  # of what is kept beside the runs
        print(f"{type(error).__name__}: {error}; then give the same command again", file=sys.stderr)
        return EXIT_FAILED
    except signals.StoppedBySignal as error:
        return 128 + error.signal
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def count(text: str) -> int:
    """Return `text` as a number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return int(text)


def folds(text: str) -> int:
    """Return `text` as a number of folds."""
    if not text.isdecimal() or not 2 <= int(text) <= MAX_FOLDS:
        raise argparse.ArgumentTypeError(f"{text} is not a number of folds: cross-validation takes 2 to {MAX_FOLDS}")
    return int(text)


def of_folds(number: int | None) -> list[str]:
    """Return the settings that run each recipe on so many folds; --set after it may choose among them."""
    return [] if number is None else [f"folds={number}", f"fold={list(range(number))}"]


def settings(args: argparse.Namespace) -> list[str]:
    """Return all that is to be set; --set has the last word."""
    kept = [] if args.keep is None else [f"keep={args.keep}"]
    return [*of_folds(args.folds), *kept, *args.set]


def limit(text: str) -> int:
    """Return `text` as a number of at least 0."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

"""Run a sweep: `python agent.py sweeps/strategies.yaml --agents 2`. See `--help`."""

import argparse
import signal
import sys
from collections.abc import Sequence

from finetune.agents import display, offline, sweepfile, workers
from finetune.agents.code import REAL, Code
from finetune.agents.plan import make_plan
from finetune.errors import EXIT_BAD_INPUT, UserError


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog="agent.py", description="Run what is left of a sweep, offline.")
    sweep_help = "a sweep file, or the folder runs/NAME of an earlier sweep (default: the newest unfinished one)"
    parser.add_argument("sweep", nargs="?", metavar="SWEEP", help=sweep_help)
    parser.add_argument("--agents", type=count, default=1, metavar="N", help="runs side by side (default: 1)")
    parser.add_argument("--count", type=count, metavar="N", help="start at most N runs; ends a search without run_cap")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a parameter; a list sweeps"
    )
    parser.add_argument("--retry-failed", action="store_true", help="start those again that failed before")
    parser.add_argument("--plan", action="store_true", help="print the runs that would be started, and stop")
    parser.add_argument("--name", metavar="NAME", help="write to runs/NAME (default: the file's name)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, code: Code = REAL) -> int:
    """Run the command line and return its exit code."""
    args = parse(argv)
    for number in workers.SIGNALS:
        signal.signal(number, offline.interrupt)
    try:
        if args.sweep and sweepfile.is_wandb_id(args.sweep):
            raise UserError(f"{args.sweep} is no file here; sweeps on a W&B server can't be run yet: give a sweep file")
        plan = make_plan(sweepfile.load(args.sweep, args.set, args.name), args.count, code.identify)
        if args.plan:
            display.show_plan(plan)
            return 0
        return offline.run_sweep(plan, code, args.agents, args.count, args.retry_failed)
    except UserError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except offline.Interrupted as error:
        return 128 + error.signal


def count(text: str) -> int:
    """Return `text` as a number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

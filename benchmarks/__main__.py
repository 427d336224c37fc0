"""The command behind `make bench`: measures, prints the tables, writes the numbers as JSON and the figure beside it."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import table
from benchmarks.baselines import CONTENDERS, OURS, PLAIN
from benchmarks.figure import draw_figure
from benchmarks.runner import BenchmarkPlan, Results, measure
from finetune.errors import EXIT_FAILED, ConfigError, nearest
from finetune.system.environment import cores
from finetune.system.output import command

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("head", "partial", "gradual", "full")
# Defaults of flags. They take minutes; --full adds `gradual` and the peers with frozen batch-norms.
QUICK = {"only": (PLAIN, "timm", "fastai", "lightning", *OURS), "strategies": ("head", "partial", "full"), "rounds": 2}
FULL = {"only": tuple(CONTENDERS), "strategies": STRATEGIES, "rounds": 5}


@command
def main(arguments: list[str]) -> int:
    """Run the benchmark and return the exit code."""
    args = _parse(arguments)
    plan = _plan(args)
    out = args.out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"results go to {out} as they are measured", file=sys.stderr, flush=True)
    results = measure(plan, out)
    print("\n".join(describe(results)))
    figure = out.with_suffix(".png")
    print(f"see {out}" + (f" and {figure}" if draw_figure(results, figure) else ""))
    has_errors = any("error" in row for row in (*results["runs"], *results["loader"]))
    return EXIT_FAILED if has_errors else 0


def describe(results: Results) -> list[str]:
    """Return the lines to print about the results."""
    return ["", *table.introduction(results), "", *table.speed_table(results), "", *table.loader_table(results), ""]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Measure how fast runs are, beside other ways to train.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--full", action="store_true", help="more images, 5 rounds, every contender; takes hours on a CPU")
    add("--only", type=_words, metavar="NAME,...", help=f"contenders, of {', '.join(CONTENDERS)}")
    add("--strategies", type=_words, metavar="NAME,...", help=f"of {', '.join(STRATEGIES)}")
    add("--rounds", type=int, help="how often to measure")
    add("--pictures", type=int, default=argparse.SUPPRESS,
        help="training images of an epoch (default: 64, with --full 384; on a GPU 1024 and 4096)")  # fmt: skip
    add("--batch-size", type=int, default=16, help="images in a batch")
    add("--backbone", default="efficientnet_v2_s", help="a torchvision network")
    add("--image-px", type=int, default=224, help="crop side")
    add("--loader-px", default="224,384", help="crop sides for which loading is measured")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--threads", type=int, default=cores(), help="of each process")
    add("--out", type=Path, default=argparse.SUPPRESS,
        help="file for the numbers, JSON (default: benchmarks/results/<time>.json)")  # fmt: skip
    parser.set_defaults(**QUICK)
    if "--full" in arguments:
        parser.set_defaults(**FULL)
    return parser.parse_args(arguments, argparse.Namespace(pictures=None, out=None))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _plan(args: argparse.Namespace) -> BenchmarkPlan:
    """Return the plan that the flags ask for.

    Raises:
        ConfigError: with all faults of the flags.
    """
    faults = [_unknown("--only", name, CONTENDERS) for name in args.only if name not in CONTENDERS]
    faults += [_unknown("--strategies", name, STRATEGIES) for name in args.strategies if name not in STRATEGIES]
    if PLAIN not in args.only:
        faults.append(f"--only: {PLAIN} must be among them, as the others are compared with it")
    for flag in ("rounds", "pictures", "batch_size", "threads"):
        if getattr(args, flag) is not None and getattr(args, flag) < 1:
            faults.append(f"--{flag.replace('_', '-')}: must be at least 1")
    sides = args.loader_px.split(",")
    if not all(side.isdecimal() and int(side) >= 16 for side in sides):
        faults.append(f"--loader-px: {args.loader_px!r} are no sides of images, such as 224,384")
    if faults:
        raise ConfigError(faults, "the command line")
    values = {**vars(args), "contenders": args.only, "weights": "none", "loader_px": tuple(map(int, sides))}
    return BenchmarkPlan(**{field.name: values[field.name] for field in dataclasses.fields(BenchmarkPlan)})


def _unknown(flag: str, name: str, choices: Iterable[str]) -> str:
    return f"{flag}: {name!r} is unknown.{nearest(name, choices)} Known: {', '.join(choices)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

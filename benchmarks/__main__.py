"""The command behind `make bench`: measures, prints the tables, writes the numbers as JSON and the figure beside it."""

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks import table
from benchmarks.baselines import CONTENDERS, OURS, PLAIN
from benchmarks.figure import draw_figure
from benchmarks.runner import Plan, Results, Target, measure
from finetune.errors import EXIT_FAILED, ConfigError, nearest
from finetune.system.documents import write_json
from finetune.system.environment import cores
from finetune.system.output import command

RESULTS = Path(__file__).parent / "results"
STRATEGIES = ("head", "partial", "gradual", "full")
# By default, what takes minutes; in --full also `gradual`, and the peers with frozen batch-norms.
QUICK = ("head", "partial", "full")
DEFAULT = (PLAIN, "timm", "fastai", "lightning", *OURS)


@command
def main(arguments: list[str]) -> int:
    """Run the benchmark and return the exit code."""
    known = _parser().parse_args(arguments)
    out = known.out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    plan = _plan(known)
    target = _target(known)
    out.parent.mkdir(parents=True, exist_ok=True)
    _say(f"results go to {out} as they are measured")
    results = measure(plan, target, lambda so_far: write_json(out, so_far), _say)
    write_json(out, results)
    print("\n".join(describe(results)))
    figure = out.with_suffix(".png")
    drawn = draw_figure(results, figure)
    print(f"see {out}" + (f" and {figure}" if drawn else ""))
    failed = any("error" in row for group in ("runs", "loader", "accuracy") for row in results[group])
    return EXIT_FAILED if failed else 0


def describe(results: Results) -> list[str]:
    """Return all that is printed of the results."""
    lines = ["", *table.introduction(results), "", *table.speed_table(results), "", *table.loader_table(results), ""]
    return [*lines, *table.accuracy_table(results), ""] if results["accuracy"] else lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="How fast runs are.", allow_abbrev=False)
    add = parser.add_argument
    add("--full", action="store_true", help="more pictures, 5 rounds, every contender; takes hours on a CPU")
    add("--only", help=f"contenders, separated by commas: {', '.join(CONTENDERS)}")
    add(
        "--strategies",
        help=f"separated by commas (default: {','.join(QUICK)}, with --full all: {','.join(STRATEGIES)})",
    )
    add("--rounds", type=int, help="(default: 2, with --full 5)")
    add("--pictures", type=int, help="that train in an epoch (default: 64, with --full 384; on a GPU 1024 and 4096)")
    add("--batch-size", type=int, default=16, help="(default: %(default)s)")
    add("--backbone", default="efficientnet_v2_s", help="(default: %(default)s)")
    add("--image-px", type=int, default=224, help="(default: %(default)s)")
    add("--loader-px", default="224,384", help="sides at which loading is measured (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    add("--threads", type=int, default=cores(), help="of each process (default: one a core, %(default)s here)")
    add("--out", type=Path, help="where to write the numbers, JSON (default: benchmarks/results/<time>.json)")
    real = parser.add_argument_group("seconds to a val accuracy on real pictures, with --data and --weights")
    add = real.add_argument
    add("--data", help="a folder of pictures")
    add("--weights", help="pretrained weights: a torchvision name, or a path to a state dict")
    add("--data-backbone", default="squeezenet1_0", help="(default: %(default)s)")
    add("--data-px", type=int, default=160, help="(default: %(default)s)")
    add("--data-epochs", type=int, default=8, help="(default: %(default)s)")
    add("--data-batch-size", type=int, default=32, help="(default: %(default)s)")
    add("--data-lr", type=float, default=1e-3, help="(default: %(default)s)")
    add("--target", type=float, default=0.8, help="the val accuracy (default: %(default)s)")
    return parser


def _plan(known: argparse.Namespace) -> Plan:
    """Return what the flags ask for.

    Raises:
        ConfigError: unknown contenders or strategies.
    """
    names = tuple(known.only.split(",")) if known.only else tuple(CONTENDERS) if known.full else DEFAULT
    strategies = tuple(known.strategies.split(",")) if known.strategies else STRATEGIES if known.full else QUICK
    faults = [_unknown("--only", name, CONTENDERS) for name in names if name not in CONTENDERS]
    faults += [_unknown("--strategies", name, STRATEGIES) for name in strategies if name not in STRATEGIES]
    if PLAIN not in names:
        faults.append(f"--only: {PLAIN} must be among them, it is what the others are compared with")
    if (known.data is None) != (known.weights is None):
        faults.append("--data and --weights belong together")
    for flag in ("rounds", "pictures", "batch_size", "threads"):
        if getattr(known, flag) is not None and getattr(known, flag) < 1:
            faults.append(f"--{flag.replace('_', '-')}: must be at least 1")
    sides = known.loader_px.split(",")
    if not all(side.isdecimal() and int(side) >= 16 for side in sides):
        faults.append(f"--loader-px: {known.loader_px!r} are no sides of pictures, such as 224,384")
    if faults:
        raise ConfigError(faults, "the command line")
    return Plan(
        contenders=names,
        strategies=strategies,
        rounds=known.rounds or (5 if known.full else 2),
        pictures=known.pictures,
        full=known.full,
        batch_size=known.batch_size,
        backbone=known.backbone,
        weights="none",
        image_px=known.image_px,
        loader_px=tuple(map(int, sides)),
        device=known.device,
        threads=known.threads,
    )


def _target(known: argparse.Namespace) -> Target | None:
    """Return what is to be reached on real pictures, if they are given."""
    if known.data is None:
        return None
    weights = str(Path(known.weights).resolve()) if Path(known.weights).exists() else known.weights
    return Target(
        data=str(Path(known.data).resolve()),
        weights=weights,
        backbone=known.data_backbone,
        image_px=known.data_px,
        epochs=known.data_epochs,
        batch_size=known.data_batch_size,
        lr=known.data_lr,
        val_accuracy=known.target,
    )


def _unknown(flag: str, name: str, choices: Iterable[str]) -> str:
    return f"{flag}: {name!r} is unknown.{nearest(name, choices)} Known: {', '.join(choices)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

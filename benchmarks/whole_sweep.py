"""What a finished sweep would have cost with the plain loop, and whether its accuracies would have been the same.

    python -m benchmarks.whole_sweep runs/clothing --seeds 0

trains, for each strategy, the recipe that val chose once more with the plain loop, and prints both side by side. A run
of the plain loop takes as long as any other of its strategy, whatever its rate and seed: so one run of each gives the
time of the whole sweep. The plain loop has no --race: it makes all runs, also those that a race left out. Its finished
runs are kept and not made again.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from analysis.errors import InputError
from analysis.sources.run_directories import read_sweep
from analysis.sources.sweep import Sweep
from analysis.tables import comparison
from benchmarks import plain
from finetune.config import parse_config
from finetune.rundir.files import read_config
from finetune.sweep.display import duration
from finetune.sweep.forecast.report import FORECAST
from finetune.system.documents import read_json, write_json
from finetune.system.environment import cores
from finetune.system.output import command

RESULTS = Path(__file__).parent / "results"
HEAD = """| strategy | runs here | plain loop, test | here, test | plain loop, a run | here, a run |
|---|--:|--:|--:|--:|--:|"""


class PlainComparison(NamedTuple):
    """A strategy's chosen recipe with both loops, on the same seeds.

    Attributes:
        seeds: how many of them.
        plain_test, here_test: mean test accuracy.
        plain_seconds: of a run, mean.
        here_seconds: of a run of this strategy, mean over all of them, filling caches included.
        runs: finished here, of this strategy, all recipes.
        grid_runs: runs of this strategy without a race: every recipe with as many seeds as the one that has most.
    """

    strategy: str
    seeds: int
    plain_test: float
    here_test: float
    plain_seconds: float
    here_seconds: float
    runs: int
    grid_runs: int

    def __str__(self) -> str:
        accuracies = f"{self.plain_test:.1%} | {self.here_test:.1%}"
        times = f"{duration(self.plain_seconds)} | {duration(self.here_seconds)}"
        return f"| {self.strategy} | {self.runs} | {accuracies} | {times} |"


@command
def main(arguments: list[str]) -> int:
    """Train what is missing, print the table, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.whole_sweep", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, metavar="runs/NAME", help="a finished sweep")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument("--threads", type=int, default=cores(), help="of the plain loop (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="keeps its results (default: benchmarks/results/plain-NAME)")
    args = parser.parse_args(arguments)
    folder, out = args.folder, args.out or RESULTS / f"plain-{args.folder.resolve().name}"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give that of a finished sweep, such as runs/strategies")
    sweep = read_sweep(folder)
    chosen = comparison.chosen_runs(sweep, comparison.compare(sweep))
    torch.set_num_threads(args.threads)
    for name in chosen[chosen["seed"].isin(args.seeds)]["run"]:
        _train(folder / name, out / f"{name}.json")
    results = {path.stem: read_json(path) or {} for path in sorted(out.glob("*.json"))}
    print("\n".join(describe(compare(sweep, results), _wall_seconds(sweep, read_json(folder / FORECAST) or {}))))
    return 0


def _train(run_dir: Path, out: Path) -> None:
    """Train the run's config with the plain loop, unless that was done."""
    if out.exists():
        return
    fields = {name: value for name, value in read_config(run_dir).items() if name != "provenance"}
    print(f"{run_dir.name} with the plain loop ...", file=sys.stderr, flush=True)
    result = plain.train(parse_config(fields, str(run_dir)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)


def _wall_seconds(sweep: Sweep, forecast: Mapping[str, Any]) -> float:
    """Return the wall time of the sweep, if one agent made all runs and noted it; else the seconds of all runs."""
    took, finished = forecast.get("took") or {}, sweep.finished
    made_all = set(finished["run"]) <= set(took.get("run_seconds", ()))
    return float(took["wall_seconds"] if made_all else finished["train_seconds"].sum())


def compare(sweep: Sweep, results: Mapping[str, Mapping[str, Any]]) -> list[PlainComparison]:
    """Return each strategy that the plain loop has trained.

    Args:
        results: run -> what `plain.train` returned for its config.
    """
    finished, rows = sweep.finished, []
    for strategy in dict.fromkeys(comparison.compare(sweep).strategies["strategy"]):
        runs = finished[finished["strategy"] == strategy]
        both = runs[runs["run"].isin(results)]
        if len(both):
            plain_results = [results[name] for name in both["run"]]
            row = PlainComparison(
                strategy=strategy,
                seeds=len(both),
                plain_test=fmean(result["test/accuracy"] for result in plain_results),
                here_test=fmean(both["test/accuracy"]),
                plain_seconds=fmean(map(_seconds, plain_results)),
                here_seconds=fmean(runs["train_seconds"]),
                runs=len(runs),
                grid_runs=runs["recipe"].nunique() * int(runs["recipe"].value_counts().max()),
            )
            rows.append(row)
    return rows


def _seconds(result: Mapping[str, Any]) -> float:
    return float(sum(row["seconds/train"] + row["seconds/val"] for row in result["epochs"]))


def describe(rows: Sequence[PlainComparison], wall_seconds: float) -> list[str]:
    """Return the table, and a line on the whole sweep.

    Args:
        wall_seconds: of all runs here together.
    """
    seeds = " to ".join(map(str, sorted({row.seeds for row in rows})))
    over = "of 1 seed" if seeds == "1" else f"means over {seeds} seeds"
    return [HEAD, *map(str, rows), "", f"{_totals(rows, wall_seconds)} Accuracies are {over}."]


def _totals(rows: Sequence[PlainComparison], wall_seconds: float) -> str:
    """Return how long all runs take with the plain loop, and took here."""
    runs, grid_runs = sum(row.runs for row in rows), sum(row.grid_runs for row in rows)
    grid = sum(row.grid_runs * row.plain_seconds for row in rows)
    same = sum(row.runs * row.plain_seconds for row in rows)
    text = f"All {grid_runs} runs: plain loop {duration(grid)}, here {duration(wall_seconds)}"
    if runs == grid_runs:
        return f"{text}: {grid / wall_seconds:.1f} times as fast."
    return (
        f"{text} for the {runs} that the race needed: {grid / wall_seconds:.1f} times as fast; "
        f"{same / wall_seconds:.1f} times for the same {runs}."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

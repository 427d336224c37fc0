"""What a finished sweep would have cost with the plain loop, and whether its accuracies would have been the same.

    python -m benchmarks.whole_sweep runs/clothing --seeds 0

trains, for each strategy, the recipe that val chose once more with the plain loop, and prints both side by side. A run
of the plain loop takes as long as any other of its strategy, whatever its rate and seed: so one run of each gives the
time of the whole sweep. The plain loop has no --race: it makes all runs, also those that a race left out. Its finished
runs are kept and not made again.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis.errors import InputError
from analysis.sources.run_directories import read_sweep
from analysis.sources.sweep import Sweep
from analysis.tables import comparison
from benchmarks import plain
from benchmarks.table import markdown_table
from finetune.config import parse_config
from finetune.rundir.files import read_config
from finetune.sweep.display import duration
from finetune.sweep.forecast.report import FORECAST
from finetune.system.documents import read_json, write_json
from finetune.system.environment import cores
from finetune.system.output import command

RESULTS = Path(__file__).parent / "results"
HEAD = ["strategy", "runs here", "plain loop, test", "here, test", "plain loop, a run", "here, a run"]


@command
def main(arguments: list[str]) -> int:
    """Train missing runs, print the table, and return the exit code."""
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


def compare(sweep: Sweep, results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each strategy that the plain loop has trained.

    Columns: strategy; runs, finished here, of all recipes; grid_runs without a race, of every recipe with as many seeds
    as the one with most; seeds of the chosen recipe with both loops, and their mean plain_test and here_test accuracy;
    mean seconds of a run, plain_seconds, and here_seconds with filling caches.

    Args:
        results: run -> result of `plain.train` for its config.
    """
    rows = []
    for strategy in dict.fromkeys(comparison.compare(sweep).arms["strategy"]):
        runs = sweep.finished[sweep.finished["strategy"] == strategy]
        both = runs[runs["run"].isin(results)]
        if both.empty:
            continue
        row = {
            "strategy": strategy,
            "runs": len(runs),
            "grid_runs": runs["recipe"].nunique() * runs["recipe"].value_counts().max(),
            "seeds": len(both),
            "plain_test": both["run"].map(lambda name: results[name]["test/accuracy"]).mean(),
            "here_test": both["test/accuracy"].mean(),
            "plain_seconds": both["run"].map(lambda name: _seconds(results[name])).mean(),
            "here_seconds": runs["train_seconds"].mean(),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _seconds(result: Mapping[str, Any]) -> float:
    return float(sum(row["seconds/train"] + row["seconds/val"] for row in result["epochs"]))


def describe(rows: pd.DataFrame, wall_seconds: float) -> list[str]:
    """Return the table, and a line on the whole sweep.

    Args:
        wall_seconds: of all runs here together.
    """
    cells = [
        [row["strategy"], str(row["runs"]), *(f"{row[key]:.1%}" for key in ("plain_test", "here_test")),
         *(duration(row[key]) for key in ("plain_seconds", "here_seconds"))]
        for row in rows.to_dict("records")
    ]  # fmt: skip
    seeds = " to ".join(map(str, sorted(set(rows["seeds"]))))
    over = "of 1 seed" if seeds == "1" else f"means over {seeds} seeds"
    return [*markdown_table(HEAD, cells), "", f"{_totals(rows, wall_seconds)} Accuracies are {over}."]


def _totals(rows: pd.DataFrame, wall_seconds: float) -> str:
    """Return how long all runs take with the plain loop, and took here."""
    runs, grid_runs = rows["runs"].sum(), rows["grid_runs"].sum()
    same, grid = (float((rows[column] * rows["plain_seconds"]).sum()) for column in ("runs", "grid_runs"))
    text = f"All {grid_runs} runs: plain loop {duration(grid)}, here {duration(wall_seconds)}"
    if runs == grid_runs:
        return f"{text}: {grid / wall_seconds:.1f} times as fast."
    return (
        f"{text} for the {runs} that the race needed: {grid / wall_seconds:.1f} times as fast; "
        f"{same / wall_seconds:.1f} times for the same {runs}."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

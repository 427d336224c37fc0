"""`make chaos`: every kind of fault, how often it was done, what was lost; then a soak. Exit code 1 if anything was."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from chaos.faults import FAULTS
from chaos.harness import Harness
from chaos.random_kills import random_kills
from chaos.soak import Reading, growth, soak

Row = tuple[str, int, int]  # kind of fault, times done, of these lost


def main(arguments: list[str]) -> int:
    """Run what is asked for, print the tables and return the exit code."""
    parser = argparse.ArgumentParser("python -m chaos", description="Break runs in every way, and count what is lost.")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="signals to agents and runs (default: 100)")
    parser.add_argument("--runs", type=int, default=300, metavar="N", help="runs of the soak (default: 300)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="factor on the times of other faults")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random choices (default: 0)")
    asked = parser.parse_args(arguments)
    console = Console()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as name:
        rows, lost = one_by_one(Path(name) / "bench", asked.seed, asked.scale, console)
        if asked.kills:
            told = random_kills(Path(name) / "storm", asked.kills, asked.seed, say=console.print)
            rows += [(kind, times, 0) for kind, times in sorted(told.blows.items())]
            rows.append((f"runs of these sweeps, in {told.starts} starts", told.runs, len(told.lost)))
            lost += told.lost
        console.print(table_of(rows))
        for line in lost:
            console.print(line, markup=False, style="red")
        if asked.runs:
            code, readings = soak(Path(name) / "soak", asked.runs, real=False)
            real_code, real = soak(Path(name) / "real", max(5, asked.runs // 10), real=True)
            console.print(soak_table({"stand-in": readings, "real": real}))
            if code or real_code:
                lost.append(f"the soak ended with exit codes {code} and {real_code}")
    console.print(f"{time.monotonic() - started:.0f} s")
    return 1 if lost else 0


def one_by_one(folder: Path, seed: int, scale: float, console: Console) -> tuple[list[Row], list[str]]:
    """Do each fault of the list its number of times; return the rows, and what was lost."""
    bench, rows, lost = Harness(folder), [], []
    for fault in FAULTS:
        rng, failed = random.Random(f"{seed} {fault.name}"), 0
        times = max(1, round(fault.times * scale))
        for number in range(times):
            if told := fault.inject(bench, rng):
                failed += 1
                lost.append(f"{fault.name}, time {number + 1}: {'; '.join(told)[-600:]}")
        rows.append((fault.name, times, failed))
        console.print(f"{fault.name}: {times} times, {failed} lost", markup=False)
    return rows, lost


def table_of(rows: list[Row]) -> Table:
    """Return the table of faults."""
    table = Table("fault", *(), title="nothing lost?")
    for name in ("times", "survived", "lost"):
        table.add_column(name, justify="right")
    for name, times, lost in rows:
        table.add_row(name, str(times), str(times - lost), str(lost))
    return table


def soak_table(soaks: dict[str, list[Reading]]) -> Table:
    """Return what agent and fork server held after a third of the runs, and at the end."""
    table = Table("runs", "process", title="soak: after a third of the runs -> at the end")
    for name in ("done", "memory MB", "open files", "threads"):
        table.add_column(name, justify="right")
    for kind, readings in soaks.items():
        for who in ("agent", "fork server"):
            a, b = growth(readings, who)
            numbers = (f"{a.done} -> {b.done}", f"{a.megabytes:.1f} -> {b.megabytes:.1f}")
            table.add_row(kind, who, *numbers, f"{a.files} -> {b.files}", f"{a.threads} -> {b.threads}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

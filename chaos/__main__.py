"""`make chaos`: inject every kind of fault, count what was lost, then soak an agent. Exit code 1 if any was lost."""

import argparse
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.table import Table

from chaos.faults import FAULTS
from chaos.harness import Harness
from chaos.random_kills import KillPlan, random_kills
from chaos.soak import ROLES, Reading, growth, soak
from finetune.system.output import SafeConsole

logger = logging.getLogger("chaos")

Row = tuple[str, int, int]  # kind of fault, times done, of these lost


def main(arguments: list[str]) -> int:
    """Inject the faults, print the tables and return the exit code."""
    parser = argparse.ArgumentParser("python -m chaos", description="Break runs in every way, and count what is lost.")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="signals to agents and runs (default: 100)")
    parser.add_argument("--runs", type=int, default=300, metavar="N", help="runs of the soak (default: 300)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="factor on the counts of other faults")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random choices (default: 0)")
    args = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    console = SafeConsole()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        rows, lost = inject_all(folder / "single", args.seed, args.scale)
        if args.kills:
            result = random_kills(folder / "kills", KillPlan(args.kills, args.seed))
            rows += [(kind, times, 0) for kind, times in sorted(result.kills.items())]
            rows.append((f"runs of these sweeps, in {result.starts} starts", result.runs, len(result.lost)))
            lost += result.lost
        console.print(faults_table(rows))
        for problem in lost:
            console.print(problem, markup=False, style="red")
        if args.runs:
            code, readings = soak(folder / "fake", args.runs, real=False)
            real_code, real_readings = soak(folder / "real", max(5, args.runs // 10), real=True)
            console.print(soak_table({"fake": readings, "real": real_readings}))
            if code or real_code:
                lost.append(f"the soak ended with exit codes {code} and {real_code}")
    console.print(f"{time.monotonic() - started:.0f} s")
    return 1 if lost else 0


def inject_all(folder: Path, seed: int, scale: float) -> tuple[list[Row], list[str]]:
    """Inject each fault of the list its number of times; return the rows of the table, and what was lost."""
    harness, rows, lost = Harness(folder), [], []
    for fault in FAULTS:
        rng, failures = random.Random(f"{seed} {fault.name}"), 0
        times = max(1, round(fault.times * scale))
        for number in range(times):
            if problems := fault.inject(harness, rng):
                failures += 1
                lost.append(f"{fault.name}, time {number + 1}: {'; '.join(problems)[-600:]}")
        rows.append((fault.name, times, failures))
        logger.info(f"{fault.name}: {times} times, {failures} lost")
    return rows, lost


def faults_table(rows: list[Row]) -> Table:
    """Return the table of faults."""
    table = Table("fault", title="nothing lost?")
    for heading in ("times", "survived", "lost"):
        table.add_column(heading, justify="right")
    for kind, times, lost in rows:
        table.add_row(kind, str(times), str(times - lost), str(lost))
    return table


def soak_table(soaks: dict[str, list[Reading]]) -> Table:
    """Return the resources of agent and fork server after a third of the runs, and at the end."""
    table = Table("runs", "process", title="soak: after a third of the runs -> at the end")
    for heading in ("finished", "memory MB", "open files", "threads"):
        table.add_column(heading, justify="right")
    for kind, readings in soaks.items():
        for role in ROLES:
            a, b = growth(readings, role)
            numbers = (f"{a.finished} -> {b.finished}", f"{a.megabytes:.1f} -> {b.megabytes:.1f}")
            table.add_row(kind, role, *numbers, f"{a.files} -> {b.files}", f"{a.threads} -> {b.threads}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs one config from the command line: `python -m finetune --data DIR --strategy head --lr 1e-3`."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from finetune.config_flags import add_fields, parse_flags
from finetune.errors import NotDownloadedError, TrainingError
from finetune.resolve import resolve, run_id
from finetune.rundir import keys
from finetune.rundir.failures import cause_of
from finetune.system.atomic import WriteError
from finetune.system.output import command, logging_to
from finetune.system.progress_bar import progress_bar
from finetune.system.signals import handle_signals

RUNS = Path("runs/single")  # beside the folders of sweeps


@command
def main(arguments: list[str]) -> int:
    """Run one config to its end and return the exit code (see errors.py)."""
    parser = argparse.ArgumentParser(
        "python -m finetune",
        usage="%(prog)s [--run-dir DIR] [--FIELD VALUE ...]",
        description="Fine-tune a network on a folder of images: one run.",
        epilog="docs/configuration.md has these fields as a page. agent.py runs many of them: docs/sweeps.md",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help=f"where the run goes (default: {RUNS}/<strategy>-<hash>)"
    )
    add_fields(parser)
    args, config = parse_flags(parser, arguments)
    # Only now torch, which takes seconds to import: a fault in a flag is reported at once.
    from finetune.run.fetch import fetch_missing
    from finetune.run.preflight import fingerprint_inputs
    from finetune.run.run import run

    with handle_signals() as received:
        inputs = None
        with contextlib.suppress(NotDownloadedError):
            inputs = fingerprint_inputs(resolve(config))  # reports a typo before a long download
        fetch_missing([config])
        inputs = inputs or fingerprint_inputs(resolve(config))
        run_dir = args.run_dir or RUNS / run_id(config, *inputs)
        try:
            with logging_to("stdout", run_dir / keys.LOG), progress_bar("start") as advance:
                did_run = run(
                    config,
                    run_dir,
                    on_progress=lambda progress: advance(progress["epoch"], progress["epochs"], _describe(progress)),
                    interrupted=lambda: received.number != 0,
                    inputs=inputs,
                )
        except (OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, WriteError) or cause_of(error) not in ("disk", "memory"):
                raise
            raise TrainingError(f"{type(error).__name__}: {error}") from error
    print(f"see {run_dir}" if did_run else f"{run_dir} is finished; nothing to do")
    return 0


def _describe(progress: dict[str, Any]) -> str:
    """Return a line on the phase that a run is in."""
    if progress["phase"] == "cache":
        share = progress["share"]
        return "another run fills the cache" if share is None else f"filling the cache {share:.0%}"
    return f"{progress['phase']} epoch {progress['epoch']:.1f}/{progress['epochs']}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

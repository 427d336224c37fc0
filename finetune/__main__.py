"""One run from the command line: `python -m finetune --data DIR --strategy head --lr 1e-3`."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from finetune.config_flags import add_fields, parse_flags
from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, NotDownloadedError, RunInterrupted, TrainingError, UserError
from finetune.resolve import resolve, run_id
from finetune.rundir import keys
from finetune.rundir.claim import RunTakenError
from finetune.rundir.failures import cause_of
from finetune.rundir.integrity import damaged_files
from finetune.system.output import SafeConsole, command, fail, logging_to
from finetune.system.signals import handle_signals

RUNS = Path("runs/single")  # beside the folders of sweeps


@command
def main(arguments: list[str]) -> int:
    """Run one config to its end and return the exit code (see errors.py)."""
    parser = argparse.ArgumentParser(
        "python -m finetune", description="Fine-tune a network on a folder of pictures.", allow_abbrev=False
    )
    parser.add_argument("--run-dir", type=Path, help=f"where the run goes (default: {RUNS}/<strategy>-<hash>)")
    add_fields(parser)
    with handle_signals() as received:
        try:
            known, config = parse_flags(parser, arguments)
            # Only now torch, which takes seconds to import: a fault in a flag is told at once.
            from finetune.run.fetch import fetch_missing
            from finetune.run.preflight import fingerprint_inputs
            from finetune.run.resume import check_directory
            from finetune.run.run import run

            with contextlib.suppress(NotDownloadedError):
                fingerprint_inputs(resolve(config))  # a typo is not to wait for a download
            fetch_missing([config])
            name = run_id(config, *fingerprint_inputs(resolve(config)))
            run_dir = known.run_dir or RUNS / name
            damaged = check_directory(run_dir, name)
            if (run_dir / keys.SUMMARY).exists() and not damaged and not damaged_files(run_dir):
                print(f"{run_dir} is finished; nothing to do")
                return 0
            with logging_to("stdout", run_dir / keys.LOG), _Bar(sys.stderr.isatty()) as bar:
                run(
                    config,
                    run_dir,
                    on_progress=bar.tell,
                    interrupted=lambda: received.number != 0,
                )
        except UserError as error:
            return fail(error, error.exit_code)
        except RunTakenError as error:
            return fail(error, EXIT_BAD_INPUT)
        except TrainingError as error:
            return fail(error, EXIT_FAILED)
        except (OSError, RuntimeError, MemoryError) as error:
            if cause_of(error) not in ("disk", "memory"):
                raise  # with its traceback: a fault of the code
            return fail(error, EXIT_FAILED)
        except RunInterrupted as error:
            print(f"{error}; the same command goes on from there", file=sys.stderr)
            return 128 + received.number
        except SystemExit:
            if not received.number:
                raise  # --help
            print("stopped; the same command goes on from the last checkpoint, if there is one", file=sys.stderr)
            return 128 + received.number
    print(f"see {run_dir}")
    return 0


class _Bar:
    """A progress bar on a terminal, nothing elsewhere; log lines go above it and into the run's log file."""

    def __init__(self, visible: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=SafeConsole(stderr=True), disable=not visible)
        self._task = self._progress.add_task("start", total=None)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, progress: dict[str, Any]) -> None:
        text = f"{progress['phase']} epoch {progress['epoch']:.1f}/{progress['epochs']}"
        if progress["phase"] == "cache":
            share = progress["share"]
            text = "another run fills the cache" if share is None else f"filling the cache {share:.0%}"
        self._progress.update(self._task, description=text, completed=progress["epoch"], total=progress["epochs"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

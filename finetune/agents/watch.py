"""What is shown of runs that other processes start: a bar on a terminal, else a line when one starts or ends.

It looks at the run directories, so that it needs no word from those processes.
"""

from pathlib import Path

from rich import progress as rich_progress

from finetune.agents.display import console
from finetune.rundir import claim, files, keys
from finetune.system import documents


class Watch:
    """Watches the run directories of one sweep; a context, in which the bar is shown."""

    def __init__(self, folder: Path, expected: int | None) -> None:
        self._folder, self._expected = folder, expected
        self._states = {run: _state(run) for run in files.find_runs(folder)}
        self._before = dict(self._states)
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
        )
        self._bars = rich_progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._bars.add_task(str(folder), total=expected, completed=self._finished(), note="")

    def __enter__(self) -> "Watch":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def look(self) -> bool:
        """Tell what has changed since the last call; return whether a run is going on."""
        for run in files.find_runs(self._folder):
            before = self._states.get(run)
            if before == "finished":
                continue
            try:
                now = _state(run)
            except (OSError, ValueError):  # another machine's half-written file, a full disk: the next look will tell
                continue
            if now != before:
                self._states[run] = now
                self._tell(run, now)
        running = [run for run, state in self._states.items() if state == "running"]
        epochs = [f"{run.name} {len(files.read_history(run)[0])}" for run in running] if console.is_terminal else []
        self._bars.update(self._bar, completed=self._finished(), note="epochs: " + ", ".join(epochs) if epochs else "")
        return bool(running)

    def failed(self) -> list[Path]:
        """Return the runs that have failed since this watch began."""
        return [run for run, state in self._states.items() if state == "failed" and self._before.get(run) != "failed"]

    def unsent(self) -> set[str]:
        """Return the W&B ids of runs that have finished since this watch began, of which W&B has not got all."""
        done = [run for run, state in self._states.items() if state == "finished" != self._before.get(run)]
        notes = [file for run in done for file in run.glob("wandb-*.json")]
        return {
            note.stem.removeprefix("wandb-")
            for note in notes
            if documents.read_json_or_empty(note).get("sent") is False
        }

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        console.print(line)

    def _finished(self) -> int:
        return sum(state == "finished" for state in self._states.values())

    def _tell(self, run: Path, state: str) -> None:
        total = f"/{self._expected}" if self._expected else ""
        if state == "running":
            self.say(f"{run.name} ...")
        elif state == "finished":
            summary = documents.read_json_or_empty(run / keys.SUMMARY)
            scores = [
                f"{name} {100 * summary[key]:.1f}%"
                for name, key in (("val", "best/val_accuracy"), ("test", "test/accuracy"))
                if isinstance(summary.get(key), int | float)
            ]
            self.say(
                f"[{self._finished()}{total}] {run.name} {' '.join(scores)} {summary.get('train_seconds', 0):.0f} s"
            )
        else:
            self.say(f"{run.name} {state}: {files.status(run)[1] or 'ended without a word'}; log: {run / keys.LOG}")


def _state(run: Path) -> str:
    """Return finished, running, failed, killed or unfinished."""
    state = files.status(run)[0]
    return "running" if state != "finished" and claim.is_alive(run) else state

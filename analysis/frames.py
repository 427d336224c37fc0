"""Tidy frames from run directories: one row a run, one row a run and epoch (predictions.py has the third)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.by_class import RECALL
from analysis.errors import InputError
from analysis.parallel import Do, one_by_one
from analysis.recipes import recipe_key
from analysis.repeats import REPEATS
from analysis.tested import Pictures, check_one_test_set, listed, tested
from finetune.rundir.files import find_runs, read_config, read_history, status
from finetune.rundir.integrity import mismatched_files
from finetune.rundir.keys import CONFIG, HISTORY, HISTORY_KEYS, PLAN, SUMMARY, SUMMARY_KEYS, SWEEP
from finetune.system.documents import read_json_or_empty
from finetune.system.output import escape_control_characters, one_line
from finetune.system.redaction import redact

AT_A_TIME = 20  # runs that are read in one go
MOST_TEXT = 2**20  # bytes of a sweep file
NEEDED = ("best/val_accuracy", "test/accuracy")  # without these a run has no place in a comparison
FIELDS = ("lr", "backbone_lr", "seed", "split_seed", "folds", "fold", "train_share")
NUMBERS = (*FIELDS, *(key for key in SUMMARY_KEYS if key not in ("state", RECALL)))


@dataclass(frozen=True)
class Sweep:
    """What the runs of one folder left behind.

    Attributes:
        name: of the folder.
        folder: that holds the run directories.
        runs: one row a run, sorted by name: `run`, `path`, `state`, `reason`, `recipe`, the config's fields, the keys
            of the summary, and what is known of its origin under `provenance/...`. Unfinished and failed runs are
            here too.
        epochs: one row a run and epoch: `run` and HISTORY_KEYS, all of them numbers.
        notes: what a reader of the numbers must know, one sentence each.
        text: the sweep file as it was run, or None.
        race: whether it gave further seeds only to recipes that val preferred at the first.
        tested: run -> the pictures it was tested on; empty where all finished runs have the same data and split.
        mixed: whether runs that were tested on different pictures are in here, as asked for.
    """

    name: str
    folder: Path
    runs: pd.DataFrame
    epochs: pd.DataFrame
    notes: tuple[str, ...]
    text: str | None
    race: bool = False
    tested: Mapping[str, Pictures] = field(default_factory=dict)
    mixed: bool = False

    @property
    def finished(self) -> pd.DataFrame:
        """The runs that count."""
        return self.runs[self.runs["state"] == "finished"]

    @property
    def left_out(self) -> pd.DataFrame:
        """The runs that do not, each with its state and reason."""
        return self.runs[self.runs["state"] != "finished"]


def read_sweep(folder: Path, do: Do = one_by_one, mix_data: bool = False) -> Sweep:
    """Read every run directory in `folder`.

    Args:
        do: reads some of them at a time, and returns what comes of it (see parallel.py).
        mix_data: whether runs that were tested on different pictures may be put together.

    Raises:
        InputError: no run is finished, or runs that were tested on different pictures lie side by side.
    """
    paths = find_runs(folder)
    parts = do([partial(_read, paths[first : first + AT_A_TIME]) for first in range(0, len(paths), AT_A_TIME)])
    notes = [note for part in parts for note in part[2]]
    runs = _typed_runs(pd.DataFrame([row for part in parts for row in part[0]]))
    typed_epochs = _together([part[1] for part in parts])
    runs, repeats = _without_repeats(runs)
    if (runs["state"] != "finished").all():
        raise InputError(_nothing_finished(folder, runs))
    finished = runs[runs["state"] == "finished"]
    known = tested(finished)
    mixed = check_one_test_set(finished, known, folder, mix_data)
    sweep_file = folder / SWEEP
    return Sweep(
        name=folder.resolve().name,
        folder=folder,
        runs=runs,
        epochs=typed_epochs,
        notes=(*mixed, *notes, *repeats, *_gaps(runs, typed_epochs), *_unlike_origins(finished)),
        text=_sweep_text(sweep_file),
        race=bool(read_json_or_empty(folder / PLAN).get("race")),
        tested=known,
        mixed=mix_data and bool(mixed),
    )


def _sweep_text(file: Path) -> str | None:
    """Return a sweep file as a report may show it: without secrets, and no more than a file of this kind has.

    None where there is none, or a link, which in a folder from elsewhere could show any file of this machine.
    """
    if not file.is_file() or file.is_symlink():
        return None
    with file.open("rb") as content:
        return redact(escape_control_characters(content.read(MOST_TEXT).decode("utf-8", errors="replace")))


def _read(paths: list[Path]) -> tuple[list[dict[str, Any]], pd.DataFrame, list[str]]:
    """Return the rows of some runs, their epochs as `Sweep` has them, and what is amiss with these."""
    rows, epochs, notes = [], [], []
    for path in paths:
        rows.append(_run_row(path))
        history, torn = read_history(path)
        epochs += [{"run": path.name, **row} for row in history]
        if torn:
            notes.append(f"{path.name}: {_torn(torn)} of {HISTORY} dropped.")
    return rows, _typed_epochs(pd.DataFrame(epochs)), notes


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the epochs of all runs in one frame."""
    some = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(some, ignore_index=True) if some else _typed_epochs(pd.DataFrame())


def _run_row(path: Path) -> dict[str, Any]:
    """Return one run as one flat row. A run that can't be read is a row too, and says why."""
    row: dict[str, Any] = {"run": path.name, "path": str(path)}
    try:
        config = read_config(path)
    except (OSError, ValueError) as error:
        return {**row, "state": "damaged", "reason": f"{CONFIG} can't be read: {_one_line(error)}"}
    provenance = config.pop("provenance", None)
    origin = dict(provenance) if isinstance(provenance, dict) else {}
    config = {name: value for name, value in config.items() if not name.startswith("provenance/")}  # no field's name
    row = {**config, **{f"provenance/{name}": value for name, value in _flat(origin).items()}, **row}
    row["recipe"] = recipe_key(config, origin.get("weights_hash"))
    try:
        state, reason = status(path)
        bad = mismatched_files(path)
        summary = read_json_or_empty(path / SUMMARY)
    except OSError as error:
        return {**row, "state": "damaged", "reason": f"its files can't be read: {_one_line(error)}"}
    if bad:
        reason = f"can't be read as the run wrote it: {', '.join(bad)}. Run the sweep again, which mends it"
        return {**row, "state": "damaged", "reason": reason}
    lacking = [key for key in NEEDED if not _is_number(summary.get(key))]
    if "strategy" not in config:
        state, reason = "damaged", f"{CONFIG} names no strategy"
    elif state == "finished" and lacking:
        state, reason = "damaged", f"{SUMMARY} has no number for {', '.join(lacking)}"
    elif state == "unfinished":
        reason = "still running, or ended without a word"
    return {**row, **{key: summary.get(key) for key in SUMMARY_KEYS}, "state": state, "reason": _one_line(reason)}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return {"splits": {"test": 3}} as {"splits/test": 3}; lists stay values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{inner}": what for inner, what in value.items()}
        else:
            flat[name] = value
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _one_line(what: object) -> str:
    """Return a reason on one line, cut where it becomes a novel."""
    text = redact(one_line(" ".join(str(what).split())))
    return text if len(text) <= 300 else f"{text[:299]}…"


def _typed_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Give every column that others rely on, with its type, whatever this folder's runs happened to hold."""
    for name in ("strategy", "recipe", "reason", RECALL):
        runs[name] = runs.get(name)
    for name in NUMBERS:
        values = runs[name] if name in runs else pd.Series(np.nan, index=runs.index)
        runs[name] = pd.to_numeric(values, errors="coerce").astype(float)
    return runs.copy()  # one block again after so many single columns


def _typed_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return run and HISTORY_KEYS as numbers; of an epoch that was written twice the later row counts."""
    epochs = epochs.reindex(columns=["run", *HISTORY_KEYS])
    epochs["run"] = epochs["run"].astype(str)  # which a column without any rows would not be
    for name in HISTORY_KEYS:
        epochs[name] = pd.to_numeric(epochs[name], errors="coerce").astype(float)
    epochs = epochs.dropna(subset=["epoch"]).drop_duplicates(["run", "epoch"], keep="last")
    return epochs.sort_values(["run", "epoch"], ignore_index=True)


def _without_repeats(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Mark runs that repeat another in all that decides it: counted twice they would pass for another seed."""
    finished, decides = runs["state"] == "finished", ["recipe", *(name for name in REPEATS if name in runs)]
    repeated = finished & runs[finished].duplicated(decides).reindex(runs.index, fill_value=False)
    if not repeated.any():
        return runs, []
    runs = runs.copy()
    runs.loc[repeated, "state"] = "repeated"
    runs.loc[repeated, "reason"] = "another run of this folder has the same recipe, seed and split"
    return runs, [f"Counted once although run more than once: {', '.join(runs['run'][repeated])}."]


def _gaps(runs: pd.DataFrame, epochs: pd.DataFrame) -> list[str]:
    """Return a sentence on the finished runs of which not every epoch is there: their curves are not whole."""
    there = epochs["run"].value_counts()
    finished = runs[runs["state"] == "finished"]
    lacking = [
        f"{run} ({there.get(run, 0)} of {trained:.0f})"
        for run, trained in zip(finished["run"], finished["epochs"], strict=True)
        if there.get(run, 0) < trained
    ]
    return [f"{HISTORY} lacks epochs of {listed(lacking)}."] if lacking else []


def _torn(lines: int) -> str:
    return "1 torn line" if lines == 1 else f"{lines} unreadable lines (the file is damaged)"


def _unlike_origins(finished: pd.DataFrame) -> list[str]:
    """Return a sentence for each way in which the finished runs were not made alike."""
    meanings = {
        "provenance/device": "Times were measured on different devices and do not compare",
        "provenance/threads": "Times were measured with different numbers of threads and do not compare",
        "provenance/git_commit": "The runs were made by different commits of the program",
        "provenance/versions/torch": "The runs were made with different versions of torch",
    }
    notes = []
    for column, meaning in meanings.items():
        values = sorted({str(value) for value in finished[column].dropna()}) if column in finished else []
        if len(values) > 1:
            notes.append(f"{meaning}: {', '.join(value[:40] for value in values)}.")
    return notes


def _nothing_finished(folder: Path, runs: pd.DataFrame) -> str:
    """Return what became of the runs of a sweep in which none is finished."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(runs["state"]).items()))
    first = [f"  {run}: {state}. {reason}" for run, state, reason in _first_reasons(runs)]
    message = f"No run in {folder} is finished ({counts}), so there is nothing to compare yet."
    return "\n".join([message, *first, "  Run the sweep again: it continues where it stopped."])


def _first_reasons(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    head = runs.head(3)
    return list(zip(head["run"], head["state"], head["reason"].fillna(""), strict=True))

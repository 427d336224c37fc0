"""Tidy frames from run directories: one row a run, one row a run and epoch (predictions.py has the third)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.sources.parallel import RunJobs, one_by_one
from analysis.sources.sweep import RECALL, Sweep, gap_notes, nothing_finished, origin_notes, torn_notes
from analysis.sources.test_sets import REPLICATES, check_one_test_set, test_set_of_each_run
from finetune.resolve import recipe_key
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


def read_sweep(folder: Path, do: RunJobs = one_by_one, mix_data: bool = False) -> Sweep:
    """Read every run directory in `folder`.

    Args:
        do: reads some of them at a time, and returns what comes of it (see parallel.py).
        mix_data: whether runs that were tested on different images may be put together.

    Raises:
        InputError: no run is finished, or runs that were tested on different images lie side by side.
    """
    paths = find_runs(folder)
    parts = do([partial(_read, paths[first : first + AT_A_TIME]) for first in range(0, len(paths), AT_A_TIME)])
    notes = [note for part in parts for note in part[2]]
    runs = _typed_runs(pd.DataFrame([row for part in parts for row in part[0]]))
    typed_epochs = _together([part[1] for part in parts])
    runs, repeats = _without_repeats(runs)
    if (runs["state"] != "finished").all():
        raise InputError(nothing_finished(folder, runs))
    finished = runs[runs["state"] == "finished"]
    known = test_set_of_each_run(finished)
    mixed = check_one_test_set(finished, known, folder, mix_data)
    sweep_file = folder / SWEEP
    return Sweep(
        name=folder.resolve().name,
        folder=folder,
        runs=runs,
        epochs=typed_epochs,
        notes=(*mixed, *notes, *repeats, *gap_notes(runs, typed_epochs), *origin_notes(finished)),
        text=_sweep_text(sweep_file),
        race=bool(read_json_or_empty(folder / PLAN).get("race")),
        test_images=known,
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
            notes.append(f"{path.name}: {torn_notes(torn)} of {HISTORY} dropped.")
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
    finished, decides = runs["state"] == "finished", ["recipe", *(name for name in REPLICATES if name in runs)]
    repeated = finished & runs[finished].duplicated(decides).reindex(runs.index, fill_value=False)
    if not repeated.any():
        return runs, []
    runs = runs.copy()
    runs.loc[repeated, "state"] = "repeated"
    runs.loc[repeated, "reason"] = "another run of this folder has the same recipe, seed and split"
    return runs, [f"Counted once although run more than once: {', '.join(runs['run'][repeated])}."]

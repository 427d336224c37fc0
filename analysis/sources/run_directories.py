"""Reads run directories into frames: one row per run, and one row per run and epoch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.sources.parallel import RunJobs, run_serially
from analysis.sources.sweep import RECALL, Sweep, gap_notes, nothing_finished, origin_notes, torn_notes
from analysis.sources.test_sets import REPLICATES, check_one_test_set, test_set_of_each_run
from finetune.resolve import recipe_key
from finetune.rundir.files import find_runs, read_config, read_history, status
from finetune.rundir.integrity import mismatched_files
from finetune.rundir.keys import CONFIG, HISTORY, HISTORY_KEYS, PLAN, SUMMARY, SUMMARY_KEYS, SWEEP
from finetune.system.documents import read_json_or_empty
from finetune.system.output import escape_control_characters, one_line
from finetune.system.redaction import redact

RUNS_PER_JOB = 20
MAX_SWEEP_FILE_BYTES = 2**20
REQUIRED = ("best/val_accuracy", "test/accuracy")  # keys of the summary that a comparison needs
FIELDS = ("lr", "backbone_lr", "seed", "split_seed", "folds", "fold", "train_share")
NUMBERS = (*FIELDS, *(key for key in SUMMARY_KEYS if key not in ("state", RECALL)))


def read_sweep(folder: Path, run_jobs: RunJobs = run_serially, mix_data: bool = False) -> Sweep:
    """Read every run directory in `folder`.

    Args:
        run_jobs: runs the jobs, each of which reads some runs (see parallel.py).
        mix_data: whether to accept runs that were tested on different images.

    Raises:
        InputError: no run is finished, or runs were tested on different images and `mix_data` is false.
    """
    paths = find_runs(folder)
    chunks = run_jobs(
        [partial(_read_runs, paths[first : first + RUNS_PER_JOB]) for first in range(0, len(paths), RUNS_PER_JOB)]
    )
    notes = [note for chunk in chunks for note in chunk[2]]
    runs = _typed_runs(pd.DataFrame([row for chunk in chunks for row in chunk[0]]))
    epochs = _concatenated([chunk[1] for chunk in chunks])
    runs, repeat_notes = _mark_repeats(runs)
    if (runs["state"] != "finished").all():
        raise InputError(nothing_finished(folder, runs))
    finished = runs[runs["state"] == "finished"]
    test_images = test_set_of_each_run(finished)
    mixed_notes = check_one_test_set(finished, test_images, folder, mix_data)
    return Sweep(
        name=folder.resolve().name,
        folder=folder,
        runs=runs,
        epochs=epochs,
        notes=(*mixed_notes, *notes, *repeat_notes, *gap_notes(runs, epochs), *origin_notes(finished)),
        text=_sweep_text(folder / SWEEP),
        race=bool(read_json_or_empty(folder / PLAN).get("race")),
        test_images=test_images,
        mixed=mix_data and bool(mixed_notes),
    )


def _sweep_text(file: Path) -> str | None:
    """Return a sweep file without secrets; None if there is none.

    Links are not followed: a folder from elsewhere could link to any local file, and the report would show it.
    """
    if not file.is_file() or file.is_symlink():
        return None
    with file.open("rb") as content:
        return redact(escape_control_characters(content.read(MAX_SWEEP_FILE_BYTES).decode("utf-8", errors="replace")))


def _read_runs(paths: list[Path]) -> tuple[list[dict[str, Any]], pd.DataFrame, list[str]]:
    """Return the rows of some runs, their epochs (see `Sweep`), and notes on damaged histories."""
    rows, epochs, notes = [], [], []
    for path in paths:
        rows.append(_run_row(path))
        history, torn = read_history(path)
        epochs += [{"run": path.name, **row} for row in history]
        if torn:
            notes.append(f"{path.name}: {torn_notes(torn)} of {HISTORY} dropped.")
    return rows, _typed_epochs(pd.DataFrame(epochs)), notes


def _concatenated(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the epochs of all runs in one frame."""
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else _typed_epochs(pd.DataFrame())


def _run_row(path: Path) -> dict[str, Any]:
    """Return a run as a flat row; for an unreadable run, its state is "damaged" and its reason says why."""
    row: dict[str, Any] = {"run": path.name, "path": str(path)}
    try:
        config = read_config(path)
    except (OSError, ValueError) as error:
        return {**row, "state": "damaged", "reason": f"{CONFIG} can't be read: {_one_line(error)}"}
    provenance = config.pop("provenance", None)
    origin = dict(provenance) if isinstance(provenance, dict) else {}
    config = {name: value for name, value in config.items() if not name.startswith("provenance/")}  # reserved prefix
    row = {**config, **{f"provenance/{name}": value for name, value in _flat(origin).items()}, **row}
    row["recipe"] = recipe_key(config, origin.get("weights_hash"))
    try:
        state, reason = status(path)
        bad = mismatched_files(path)
        summary = read_json_or_empty(path / SUMMARY)
    except OSError as error:
        return {**row, "state": "damaged", "reason": f"its files can't be read: {_one_line(error)}"}
    if bad:
        reason = f"can't be read as the run wrote it: {', '.join(bad)}. Run the sweep again, which fixes it"
        return {**row, "state": "damaged", "reason": reason}
    missing = [key for key in REQUIRED if not _is_number(summary.get(key))]
    if "strategy" not in config:
        state, reason = "damaged", f"{CONFIG} names no strategy"
    elif state == "finished" and missing:
        state, reason = "damaged", f"{SUMMARY} has no number for {', '.join(missing)}"
    elif state == "unfinished":
        reason = "still running, or ended without a record"
    return {**row, **{key: summary.get(key) for key in SUMMARY_KEYS}, "state": state, "reason": _one_line(reason)}


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return {"splits": {"test": 3}} as {"splits/test": 3}; lists stay values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _one_line(reason: object) -> str:
    """Return a reason on one line of at most 300 characters, without secrets."""
    text = redact(one_line(" ".join(str(reason).split())))
    return text if len(text) <= 300 else f"{text[:299]}…"


def _typed_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with all columns that the analysis needs, each with its type."""
    for name in ("strategy", "recipe", "reason", RECALL):
        runs[name] = runs.get(name)
    for name in NUMBERS:
        values = runs[name] if name in runs else pd.Series(np.nan, index=runs.index)
        runs[name] = pd.to_numeric(values, errors="coerce").astype(float)
    return runs.copy()  # one block again after so many single columns


def _typed_epochs(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return columns run and HISTORY_KEYS, as numbers; if an epoch was written twice, the later row counts."""
    epochs = epochs.reindex(columns=["run", *HISTORY_KEYS])
    epochs["run"] = epochs["run"].astype(str)  # an empty column would have another type
    for name in HISTORY_KEYS:
        epochs[name] = pd.to_numeric(epochs[name], errors="coerce").astype(float)
    epochs = epochs.dropna(subset=["epoch"]).drop_duplicates(["run", "epoch"], keep="last")
    return epochs.sort_values(["run", "epoch"], ignore_index=True)


def _mark_repeats(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Set the state of runs with recipe, seed and split of another run to "repeated"; return runs and notes."""
    finished, identity = runs["state"] == "finished", ["recipe", *(name for name in REPLICATES if name in runs)]
    repeated = finished & runs[finished].duplicated(identity).reindex(runs.index, fill_value=False)
    if not repeated.any():
        return runs, []
    runs = runs.copy()
    runs.loc[repeated, "state"] = "repeated"
    runs.loc[repeated, "reason"] = "another run in this folder has the same recipe, seed and split"
    return runs, [f"Counted once although run more than once: {', '.join(runs['run'][repeated])}."]

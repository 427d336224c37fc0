"""The runs of one sweep as frames, and the notes a reader of their numbers needs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis.sources.test_sets import TestImages, format_run_list
from finetune.rundir.keys import HISTORY

RECALL = "test/recall"  # of a run's summary: class -> share of its test images classified correctly


@dataclass(frozen=True)
class Sweep:
    """The runs of one folder.

    Attributes:
        runs: one row per run, finished or not, sorted by name: `run`, `path`, `state`, `reason`, `recipe`, the config's
            fields, the keys of the summary, and the provenance under `provenance/...`.
        epochs: one row per run and epoch: `run` and HISTORY_KEYS, all of them numbers.
        notes: caveats, one sentence each.
        text: the sweep file, or None.
        race: whether only the best recipes by val of the first seed got further seeds.
        test_images: run -> its test images; empty if all finished runs have the same data and split.
        mixed: whether runs that were tested on different images are in here (--mix-data).
    """

    name: str
    folder: Path
    runs: pd.DataFrame
    epochs: pd.DataFrame
    notes: tuple[str, ...]
    text: str | None
    race: bool = False
    test_images: Mapping[str, TestImages] = field(default_factory=dict)
    mixed: bool = False

    @property
    def finished(self) -> pd.DataFrame:
        """The finished runs."""
        return self.runs[self.runs["state"] == "finished"]

    @property
    def left_out(self) -> pd.DataFrame:
        """The runs that are not finished, with state and reason."""
        return self.runs[self.runs["state"] != "finished"]


def gap_notes(runs: pd.DataFrame, epochs: pd.DataFrame) -> list[str]:
    """Return a sentence on the finished runs whose history lacks epochs, if any."""
    counts = epochs["run"].value_counts()
    finished = runs[runs["state"] == "finished"]
    incomplete = [
        f"{run} ({counts.get(run, 0)} of {trained:.0f})"
        for run, trained in zip(finished["run"], finished["epochs"], strict=True)
        if counts.get(run, 0) < trained
    ]
    return [f"{HISTORY} lacks epochs of {format_run_list(incomplete)}."] if incomplete else []


def torn_notes(lines: int) -> str:
    return "1 torn line" if lines == 1 else f"{lines} unreadable lines (the file is damaged)"


def origin_notes(finished: pd.DataFrame) -> list[str]:
    """Return a sentence for each property of the environment in which the finished runs differ."""
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


def nothing_finished(folder: Path, runs: pd.DataFrame) -> str:
    """Return the message for a sweep without a finished run."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(runs["state"]).items()))
    first = [f"  {run}: {state}. {reason}" for run, state, reason in _first_reasons(runs)]
    message = f"No run in {folder} is finished ({counts}), so there is nothing to compare yet."
    return "\n".join([message, *first, "  Run the sweep again: it continues where it stopped."])


def _first_reasons(runs: pd.DataFrame) -> list[tuple[str, str, str]]:
    head = runs.head(3)
    return list(zip(head["run"], head["state"], head["reason"].fillna(""), strict=True))

"""Test images of the runs of a folder: accuracies compare only on the same images."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.errors import InputError
from analysis.sources.predictions import check_size
from finetune.resolve import SPLIT_FIELDS
from finetune.rundir.keys import PREDICTIONS
from finetune.system.tables import unescape_cell

MIX_DATA = "put runs that were tested on different images into one table, with a note"  # help of --mix-data
DATA = "provenance/data_fingerprint"
# Column of the runs -> what a value is called. Runs on different data are in one table only with --mix-data.
REPLICATES = {"seed": "seed", "fold": "fold", "split_seed": "split", DATA: "data set"}
SPLIT = (DATA, *(name for name in SPLIT_FIELDS if name != "data"))  # columns that decide the test images

TestImages = Mapping[str, str]  # "fingerprint:path" -> label


def test_set_of_each_run(finished: pd.DataFrame) -> dict[str, TestImages]:
    """Return run -> test images; empty in the usual case that all runs have the same data and split.

    Reads one run per data and split; runs are left out if none of these can be read.
    """
    columns = [name for name in SPLIT if name in finished]
    groups = [group for _, group in finished.groupby(columns, dropna=False)]
    if len(groups) < 2:
        return {}
    test_sets: dict[str, TestImages] = {}
    for group in groups:
        images = next(filter(None, map(_images, group["path"], group.get(DATA, group["run"]))), None)
        if images:
            test_sets |= dict.fromkeys(group["run"], images)
    return test_sets


def _images(run_dir: str, fingerprint: object) -> TestImages | None:
    """Return the test images of a run, or None if its predictions can't be read."""
    path = Path(run_dir) / PREDICTIONS
    try:
        check_size(path)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["path", "label"], encoding="utf-8")
    except (OSError, ValueError):  # pandas' parser errors and wrong encodings are ValueErrors
        return None
    paths, labels = (table[name].map(unescape_cell) for name in ("path", "label"))
    return {f"{fingerprint}:{path}": label for path, label in zip(paths, labels, strict=True)}


def check_one_test_set(
    finished: pd.DataFrame, test_sets: Mapping[str, TestImages], folder: Path, mix_data: bool
) -> list[str]:
    """Return notes on runs that differ in data or split.

    The folds of a cross-validation belong together: over all of them, every image is tested once.

    Args:
        test_sets: see `test_set_of_each_run`.

    Raises:
        InputError: runs were tested on different images, and `mix_data` is false.
    """
    kinds = _kinds(finished)
    if len(kinds) < 2:
        return []
    unions = {_union(runs, test_sets) for runs in kinds.values()}
    fingerprints = {fingerprint for fingerprint, *_ in kinds}
    if len(fingerprints) == 1 and len(unions - {None}) < 2:
        if None in unions:
            return ["The runs split the data differently, so that they may have been tested on different images."]
        return ["The runs split the data differently; all were tested on the same images."]
    lines = [f"{_describe(kind, runs, kinds)}: {format_run_list(list(runs['run']))}" for kind, runs in kinds.items()]
    if mix_data:
        return [
            "Mixed (--mix-data): the runs were tested on different images, and means over them hold for none of these "
            f"test sets: {'; '.join(lines)}."
        ]
    difference = "made on different data" if len(fingerprints) > 1 else "tested on different images"
    raise InputError(
        f"The runs in {folder} were {difference}, so their accuracies do not compare:\n  "
        + "\n  ".join(lines)
        + "\n  Give each of these a folder of its own: copy run directories there, or run the sweep for other data "
        "under another name (python agent.py SWEEP --name NAME). --mix-data puts them into one table anyway."
    )


Kind = tuple[str, bool, float | None, str]  # data fingerprint, whether with folds; without: split seed, group_by or ""


def _kinds(finished: pd.DataFrame) -> dict[Kind, pd.DataFrame]:
    """Return the runs by what decides their test images; runs with unknown data are left out."""
    if DATA not in finished:
        return {}
    rows: dict[Kind, list[int]] = {}
    columns = finished.reindex(columns=[DATA, "folds", "split_seed", "group_by"])  # earlier versions lack the last
    for row, (data, folds, seed, group_by) in enumerate(columns.itertuples(index=False)):
        if not isinstance(data, str):
            continue
        kind = (data, True, None, "")  # over all folds, every image is tested
        if math.isnan(folds):
            groups = group_by if isinstance(group_by, str) else ""
            kind = (data, False, None if math.isnan(seed) else seed, groups)
        rows.setdefault(kind, []).append(row)
    return {kind: finished.iloc[numbers] for kind, numbers in rows.items()}


def _union(runs: pd.DataFrame, test_sets: Mapping[str, TestImages]) -> frozenset[str] | None:
    """Return the union of these runs' test images, or None if a run's are unknown."""
    if not set(runs["run"]) <= test_sets.keys():
        return None
    distinct = {id(images): images for images in map(test_sets.__getitem__, runs["run"])}
    return frozenset(path for images in distinct.values() for path in images)


def _describe(kind: Kind, runs: pd.DataFrame, kinds: Mapping[Kind, pd.DataFrame]) -> str:
    """Return how this kind differs from the others, such as "data 3f2a11 (clothes), split_seed 1"."""
    data, has_folds, seed, group_by = kind
    properties = []
    if len({other for other, *_ in kinds}) > 1:
        name = Path(str(runs["data"].iloc[0])).name if "data" in runs else ""
        properties.append(f"data {data[:12]}" + (f" ({name})" if name else ""))
    if len({other[1:] for other in kinds}) > 1:
        properties.append("folds" if has_folds else f"split_seed {seed:g}" if seed is not None else "no split_seed")
        properties += [f"group_by {group_by}"] if group_by else []
    return ", ".join(properties)


def format_run_list(names: list[str], max_names: int = 6) -> str:
    """Return the number of runs and the first names, such as "2 runs: a, b"."""
    more = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return f"{len(names)} run{'s' if len(names) > 1 else ''}: {', '.join(names[:max_names])}{more}"

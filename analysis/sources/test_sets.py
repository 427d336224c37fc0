"""Which images the runs of a folder were tested on: accuracies compare where they are the same."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from analysis.errors import InputError
from analysis.sources.predictions import check_size
from finetune.rundir.keys import PREDICTIONS
from finetune.system.tables import unescape_cell

MIX_DATA = "put runs into one table that were tested on different images, and say so"  # help of --mix-data
DATA = "provenance/data_fingerprint"
REPLICATES = {"seed": "seed", "fold": "fold", "split_seed": "split", DATA: "data set"}
SPLIT = (DATA, "split_seed", "folds", "fold")  # columns of the runs that decide what is tested

TestImages = Mapping[str, str]  # of a test set: data fingerprint and path -> label


def test_set_of_each_run(finished: pd.DataFrame) -> dict[str, TestImages]:
    """Return run -> what it was tested on. Empty where all runs have the same data and split, which are the rule.

    Of runs that agree in that, one is read. Runs of whose kind none can be read are left out.
    """
    columns = [name for name in SPLIT if name in finished]
    groups = [group for _, group in finished.groupby(columns, dropna=False)]
    if len(groups) < 2:
        return {}
    found: dict[str, TestImages] = {}
    for group in groups:
        images = next(filter(None, map(_images, group["path"], group.get(DATA, group["run"]))), None)
        if images:
            found |= dict.fromkeys(group["run"], images)
    return found


def _images(run_dir: str, fingerprint: object) -> TestImages | None:
    """Return what one run was tested on, or None where its predictions can't be read."""
    path = Path(run_dir) / PREDICTIONS
    try:
        check_size(path)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["path", "label"], encoding="utf-8")
    except (OSError, ValueError):  # pandas' parser errors and wrong encodings are ValueErrors
        return None
    paths, labels = (table[name].map(unescape_cell) for name in ("path", "label"))
    return {f"{fingerprint}:{path}": label for path, label in zip(paths, labels, strict=True)}


def check_one_test_set(finished: pd.DataFrame, known: Mapping[str, TestImages], folder: Path, mix: bool) -> list[str]:
    """Return what has to be said of runs that differ in data or split.

    The folds of a cross-validation belong together: over all of them, every image is tested once.

    Args:
        known: as `tested` has it.
        mix: whether runs that were tested on different images may be put together all the same.

    Raises:
        InputError: there are such runs, and `mix` is false.
    """
    kinds = _kinds(finished)
    if len(kinds) < 2:
        return []
    sets = {kind: _together(runs, known) for kind, runs in kinds.items()}
    on_data = {fingerprint for fingerprint, *_ in kinds}
    unknown = any(images is None for images in sets.values())
    if len(on_data) == 1 and len({images for images in sets.values() if images is not None}) < 2:
        if unknown:
            return ["The runs split the data differently, so that they may have been tested on different images."]
        return ["The runs split the data differently; all were tested on the same images."]
    lines = [f"{_named(kind, runs, kinds)}: {format_run_list(list(runs['run']))}" for kind, runs in kinds.items()]
    if mix:
        return [
            "Mixed, as asked for with --mix-data: the runs were tested on different images, and means over them are "
            f"neither of the one nor of the other: {'; '.join(lines)}."
        ]
    how = "made on different data" if len(on_data) > 1 else "tested on different images"
    raise InputError(
        f"The runs in {folder} were {how}, so their accuracies do not compare:\n  "
        + "\n  ".join(lines)
        + "\n  Give each of these a folder of its own: copy run directories there, or start the sweep for other data "
        "under another name (python agent.py SWEEP --name NAME). --mix-data puts them into one table all the same."
    )


Kind = tuple[str, bool, float | None]  # data fingerprint, whether with folds, split seed where there are none


def _kinds(finished: pd.DataFrame) -> dict[Kind, pd.DataFrame]:
    """Return the runs by what decides their test images; runs that do not tell their data are left out."""
    if DATA not in finished:
        return {}
    rows: dict[Kind, list[int]] = {}
    for row, (data, folds, seed) in enumerate(finished[[DATA, "folds", "split_seed"]].itertuples(index=False)):
        has_folds = not math.isnan(folds)
        if isinstance(data, str):
            rows.setdefault((data, has_folds, None if has_folds or math.isnan(seed) else seed), []).append(row)
    return {kind: finished.iloc[found] for kind, found in rows.items()}


def _together(runs: pd.DataFrame, known: Mapping[str, TestImages]) -> frozenset[str] | None:
    """Return all images that these runs were tested on, or None where that is not known of each."""
    if not set(runs["run"]) <= known.keys():
        return None
    return frozenset(path for images in {id(known[run]): known[run] for run in runs["run"]}.values() for path in images)


def _named(kind: Kind, runs: pd.DataFrame, kinds: Mapping[Kind, pd.DataFrame]) -> str:
    """Return what tells this kind from the others, such as "data 3f2a11 (clothes), split_seed 1"."""
    data, has_folds, seed = kind
    told = []
    if len({other for other, *_ in kinds}) > 1:
        name = Path(str(runs["data"].iloc[0])).name if "data" in runs else ""
        told.append(f"data {data[:12]}" + (f" ({name})" if name else ""))
    if len({other[1:] for other in kinds}) > 1:
        told.append("folds" if has_folds else f"split_seed {seed:g}" if seed is not None else "no split_seed")
    return ", ".join(told)


def format_run_list(names: list[str], most: int = 6) -> str:
    """Return how many runs there are, and the first names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} run{'s' if len(names) > 1 else ''}: {', '.join(names[:most])}{more}"


# Column of the runs -> what one value of it is called. Runs on different data meet in one table on request alone.

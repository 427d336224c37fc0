"""Points that a Bayesian search has proposed, one numbered file each beside the run directories, for all agents."""

import itertools
import json
from pathlib import Path
from typing import Any

from finetune.sweep.search import ParameterValues
from finetune.system import atomic, documents
from finetune.system.atomic import create_exclusive, raising_write_error, write_atomic

TRIALS = "trials"  # the folder's name


def read_trials(folder: Path) -> list[ParameterValues]:
    """Return the points proposed so far in a sweep's folder, in order, up to a file that is still being written.

    Raises:
        CorruptFileError: a file does not hold a JSON object.
    """
    paths = itertools.takewhile(lambda path: path.stat().st_size, sorted((folder / TRIALS).glob("[0-9]*.json")))
    return [documents.read_json(path) or {} for path in paths]


def is_being_written(folder: Path, number: int) -> bool:
    """Return whether another agent has created the file of trial `number` and has not filled it yet."""
    path = _path(folder, number)
    return path.exists() and not path.stat().st_size and not _is_abandoned(path)


def record_trial(folder: Path, number: int, point: ParameterValues) -> None:
    """Write `point` as trial `number`, unless another agent has written, or is writing, a trial of this number."""
    path, text = _path(folder, number), json.dumps(point) + "\n"
    with raising_write_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not create_exclusive(path, text) and not path.stat().st_size and _is_abandoned(path):
            write_atomic(path, text)


def _path(folder: Path, number: int) -> Path:
    return folder / TRIALS / f"{number:05d}.json"


def _is_abandoned(path: Path) -> bool:
    """Return whether the process that created this empty file has been killed."""
    return atomic.seconds_since_write(path) >= atomic.STALE_SECONDS


def in_search_space(spec: dict[str, Any], point: ParameterValues) -> bool:
    """Return whether a recorded point lies in the space of the sweep file, which may have changed since."""
    parameters = spec["parameters"]
    return point.keys() == parameters.keys() and all(_allows(parameters[name], value) for name, value in point.items())


def _allows(parameter: dict[str, Any], value: Any) -> bool:
    if "value" in parameter and parameter["value"] != value:
        return False
    if "values" in parameter and value not in parameter["values"]:
        return False
    if "min" not in parameter:
        return True
    step = parameter.get("q", 0)  # the search engine rounds to multiples of q, also beyond min and max
    return bool(parameter["min"] - step <= value <= parameter["max"] + step)

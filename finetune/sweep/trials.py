"""Points that a Bayesian search has proposed, one numbered file each beside the run directories, for all agents."""

import itertools
import json
import logging
import math
from functools import cache
from pathlib import Path
from typing import Any

from finetune.errors import UserError
from finetune.sweep.search import ParameterValues
from finetune.system import atomic, documents
from finetune.system.atomic import create_exclusive, raising_write_error, write_atomic

logger = logging.getLogger(__name__)

TRIALS = "trials"  # the folder's name
TOLERANCE = 1e-9  # relative, of a value at a bound


def read_trials(folder: Path) -> list[ParameterValues]:
    """Return the points proposed so far in a sweep's folder, in order, up to a file that is still being written.

    A damaged file is logged, and its point is {}, which lies in no search space: its trial is lost, no other.
    """
    paths = itertools.takewhile(lambda path: path.stat().st_size, sorted((folder / TRIALS).glob("[0-9]*.json")))
    return [_read_trial(path) for path in paths]


def _read_trial(path: Path) -> ParameterValues:
    try:
        return documents.read_json(path) or {}
    except (UserError, OSError, ValueError, TypeError) as error:
        _warn_once(f"{path} is passed over: {error}")
        return {}


@cache
def _warn_once(message: str) -> None:
    """Log a warning, once however often the trials are read."""
    logger.warning(message)


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
    step = parameter.get("q", 0)  # points of earlier versions lie beyond min and max, where the engine rounded so
    is_near = any(math.isclose(value, bound, rel_tol=TOLERANCE) for bound in (parameter["min"], parameter["max"]))
    return bool(is_near or parameter["min"] - step <= value <= parameter["max"] + step)

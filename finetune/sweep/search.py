"""The points of a sweep, and the runs that it stops early, by W&B's own search engine (PyPI `sweeps`).

Only this module imports that package. The engine draws from the global random streams of `random` and `numpy`. Here
each call is seeded with the sweep's name and the trial's number, so that a sweep always has the same points.
"""

import contextlib
import hashlib
import itertools
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from finetune.errors import SearchError

ParameterValues = dict[str, Any]  # parameter -> value, as the engine returns it, before it becomes a Config

ALL_POINTS = 10**9  # more than any grid has


@dataclass(frozen=True)
class ObservedPoint:
    """A point that has been tried, as the engine sees it.

    Attributes:
        state: finished, running, failed or killed.
        history: one mapping per epoch.
    """

    name: str
    point: ParameterValues
    state: str
    summary: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()


@cache
def _engine() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `sweeps` 0.3.0 uses names that pydantic has renamed
        import sweeps
    return sweeps


@contextlib.contextmanager
def _seeded(*seed: object) -> Iterator[None]:
    """Seed the global random streams within the block, and restore them after it."""
    digest = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "big"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Gaussian process warns when it has not converged
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def schema_faults(spec: dict[str, Any]) -> list[str]:
    """Return the violations of W&B's schema in a sweep file whose `parameters` is a mapping of mappings."""
    try:
        found = list(dict.fromkeys(_engine().schema_violations_from_proposed_config(spec)))
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # raised for some malformed files
        found = [f"W&B's check of sweep files can't read it: {error}"]
    texts = [
        f"{name}: YAML reads {bound}: {value} as text; write it with a point, as in 1.0e-3"
        for name, parameter in spec["parameters"].items()
        for bound, value in parameter.items()
        if bound in ("min", "max", "mu", "sigma", "q") and isinstance(value, str)
    ]
    return texts or found


def grid_points(spec: dict[str, Any]) -> list[ParameterValues]:
    """Return all points of a grid, the last name in the alphabet varying fastest.

    Raises:
        SearchError: a parameter has a continuous distribution.
    """
    plain = plain_grid_points(spec)
    if plain is not None:
        return list(plain)
    with _seeded("grid"):
        return [_point(run) for run in _call(spec, [], ALL_POINTS) if run is not None]


def plain_grid_points(spec: Mapping[str, Any]) -> Iterator[ParameterValues] | None:
    """Return what `grid_points` does if each parameter is one value or a list of different values, else None.

    This needs no engine, which takes a second to import.
    """
    columns = []
    for name, parameter in sorted(spec["parameters"].items()):
        values = _plain_values(parameter)
        if not values:
            return None
        columns.append([(name, value) for value in values])
    return map(dict, itertools.product(*columns))


def _plain_values(parameter: Mapping[str, Any]) -> list[Any]:
    """Return the values of a parameter that is one value or a list of different values, else an empty list."""
    values = [parameter["value"]] if parameter.keys() == {"value"} else parameter.get("values")
    if len(parameter) != 1 or not isinstance(values, list):
        return []
    is_plain = all(isinstance(value, bool | int | float | str | list) and values.count(value) == 1 for value in values)
    return values if is_plain else []


def draw_point(spec: dict[str, Any], name: str, number: int) -> ParameterValues:
    """Return the random point of trial `number` in the sweep called `name`."""
    with _seeded(name, number):
        return _clipped(spec, _point(_call(spec, [], 1)[0]))


def propose_point(spec: dict[str, Any], name: str, number: int, observed: Sequence[ObservedPoint]) -> ParameterValues:
    """Return the point that a Bayesian search proposes as trial `number` of the sweep called `name`.

    Raises:
        SearchError: the engine fails.
    """
    with _seeded(name, number):
        return _clipped(spec, _point(_call(spec, [_sweep_run(point) for point in observed], 1)[0]))


def spanning_points(spec: dict[str, Any], name: str) -> list[ParameterValues]:
    """Return points from all over the search space, bounds included, to check them before anything is started."""
    parameters = spec["parameters"]
    points = [draw_point({**spec, "method": "random"}, name, -1 - number) for number in range(16)]
    for bound in ("min", "max"):
        points.append({**points[0], **{key: value[bound] for key, value in parameters.items() if bound in value}})
    for key, parameter in parameters.items():
        points += [{**points[0], key: value} for value in parameter.get("values", [])]
    return points


def points_to_stop(spec: dict[str, Any], observed: Sequence[ObservedPoint]) -> list[str]:
    """Return the names of the running points that `early_terminate` would stop now.

    Raises:
        SearchError: the engine fails.
    """
    with _seeded("early_terminate"):
        try:
            return [run.name for run in _engine().stop_runs(spec, [_sweep_run(point) for point in observed])]
        except Exception as error:  # of any kind, see _call
            raise SearchError(f"W&B's hyperband can't use this sweep ({type(error).__name__}: {error})") from error


def _call(spec: dict[str, Any], runs: list[Any], count: int) -> list[Any]:
    method = spec["method"]
    try:
        if method == "grid":  # not by `next_runs`, which takes seconds to import scikit-learn for any method
            from sweeps.grid_search import grid_search_next_runs

            return list(grid_search_next_runs(runs, spec, n=count))
        if method == "random":
            from sweeps.random_search import random_search_next_runs

            return list(random_search_next_runs(spec, n=count))
        return list(_engine().next_runs(spec, runs, n=count))
    except Exception as error:  # of any kind: the sweep file is the engine's only input
        raise SearchError(f"W&B's search engine can't use this sweep ({type(error).__name__}: {error})") from error


def _sweep_run(observed: ObservedPoint) -> Any:
    return _engine().SweepRun(
        name=observed.name,
        state=observed.state,
        config={key: {"value": value} for key, value in observed.point.items()},
        summary_metrics=dict(observed.summary),
        history=[dict(row) for row in observed.history],
    )


def _point(run: Any) -> ParameterValues:
    return {key: _plain(wrapped["value"]) for key, wrapped in sorted(run.config.items())}


def _clipped(spec: Mapping[str, Any], point: ParameterValues) -> ParameterValues:
    """Return the point within the bounds of its parameters: the engine rounds to multiples of `q` beyond them, too."""
    return {name: _clip(spec["parameters"][name], value) for name, value in point.items()}


def _clip(parameter: Mapping[str, Any], value: Any) -> Any:
    low, high = parameter.get("min"), parameter.get("max")
    if low is None or high is None or not isinstance(value, int | float) or low <= value <= high:
        return value
    return type(value)(min(max(value, low), high))


def _plain(value: Any) -> Any:
    """Turn numpy's scalars into Python's, which YAML, JSON and pydantic can handle."""
    return value.item() if isinstance(value, np.generic | np.ndarray) else value

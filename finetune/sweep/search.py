"""Which points a sweep asks for, and which runs it stops early, by W&B's own search engine (PyPI `sweeps`).

The only importer of that package. It draws from the global random streams of `random` and `numpy`; here every call has
a seed of its own, made from the sweep's name and the trial's number, so that a sweep asks for the same points again.
"""

import contextlib
import hashlib
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from finetune.errors import UserError

ParameterValues = dict[str, Any]  # parameter -> value, as the engine gives it, before it becomes a Config

ALL = 10**9  # more points than any grid has


@dataclass(frozen=True)
class ObservedPoint:
    """What the engine is told of a point that has been tried.

    Attributes:
        state: finished, running, failed or killed.
        history: one mapping an epoch.
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
def _seeded(*parts: object) -> Iterator[None]:
    """Seed the global random streams from `parts`, without a trace afterwards."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "big"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Gaussian process warns when it has not converged; nothing to mend
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def violations(spec: dict[str, Any]) -> list[str]:
    """Return what W&B's schema says against a sweep file whose `parameters` is a mapping of mappings."""
    try:
        found = list(dict.fromkeys(_engine().schema_violations_from_proposed_config(spec)))
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # it trips over some malformed files
        found = [f"W&B's check of sweep files can't read it: {error}"]
    texts = [
        f"{name}: YAML reads {bound}: {value} as text; write it with a point, as in 1.0e-3"
        for name, parameter in spec["parameters"].items()
        for bound, value in parameter.items()
        if bound in ("min", "max", "mu", "sigma", "q") and isinstance(value, str)
    ]
    return texts or found


def grid(spec: dict[str, Any]) -> list[ParameterValues]:
    """Return all points of a grid, the last name in the alphabet varying fastest.

    Raises:
        UserError: a parameter has a distribution without an end, which a grid can't hold.
    """
    with _seeded("grid"):
        return [_point(run) for run in _call(spec, [], ALL) if run is not None]


def draw(spec: dict[str, Any], name: str, number: int) -> ParameterValues:
    """Return the random point of trial `number` in the sweep called `name`."""
    with _seeded(name, number):
        return _point(_call(spec, [], 1)[0])


def propose(spec: dict[str, Any], name: str, number: int, trials: Sequence[ObservedPoint]) -> ParameterValues:
    """Return the point that Bayesian search asks for as trial `number`, given all earlier ones."""
    with _seeded(name, number):
        return _point(_call(spec, [_sweep_run(trial) for trial in trials], 1)[0])


def probes(spec: dict[str, Any], name: str) -> list[ParameterValues]:
    """Return points that reach all corners of the space, to check them before anything is started."""
    parameters = spec["parameters"]
    points = [draw({**spec, "method": "random"}, name, -1 - number) for number in range(16)]
    for bound in ("min", "max"):
        points.append({**points[0], **{key: value[bound] for key, value in parameters.items() if bound in value}})
    for key, parameter in parameters.items():
        points += [{**points[0], key: value} for value in parameter.get("values", [])]
    return points


def to_stop(spec: dict[str, Any], trials: Sequence[ObservedPoint]) -> list[str]:
    """Return the names of the running trials that `early_terminate` would stop now."""
    with _seeded("early_terminate"):
        return [run.name for run in _engine().stop_runs(spec, [_sweep_run(trial) for trial in trials])]


def _call(spec: dict[str, Any], runs: list[Any], count: int) -> list[Any]:
    method = spec["method"]
    try:
        if method == "grid":  # past `next_runs`, which imports scikit-learn whatever the method: seconds for nothing
            from sweeps.grid_search import grid_search_next_runs

            return list(grid_search_next_runs(runs, spec, n=count))
        if method == "random":
            from sweeps.random_search import random_search_next_runs

            return list(random_search_next_runs(spec, n=count))
        return list(_engine().next_runs(spec, runs, n=count))
    except Exception as error:  # the engine raises whatever it meets; all of it comes from the sweep file
        raise UserError(f"W&B's search engine can't use this sweep: {error}") from error


def _sweep_run(trial: ObservedPoint) -> Any:
    return _engine().SweepRun(
        name=trial.name,
        state=trial.state,
        config={key: {"value": value} for key, value in trial.point.items()},
        summary_metrics=dict(trial.summary),
        history=[dict(row) for row in trial.history],
    )


def _point(run: Any) -> ParameterValues:
    return {key: _plain(wrapped["value"]) for key, wrapped in sorted(run.config.items())}


def _plain(value: Any) -> Any:
    """Turn numpy's scalars into Python's, which YAML, JSON and pydantic know."""
    return value.item() if isinstance(value, np.generic | np.ndarray) else value

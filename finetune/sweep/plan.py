"""Sweep file -> the runs it asks for, each with its config and directory; points that are the same run are one run."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.config import Config, parse_config
from finetune.errors import ConfigError, NotDownloadedError, UserError
from finetune.resolve import FIELDS_WITHOUT_EFFECT, resolve, run_id, with_absolute_paths
from finetune.rundir import claim, files, keys
from finetune.sweep import search
from finetune.sweep.ordering import breadth_first
from finetune.sweep.search import ParameterValues
from finetune.sweep.sweep_file import SweepFile
from finetune.system import atomic, documents
from finetune.system.atomic import create_exclusive, raising_write_error, write_atomic

Identify = Callable[[Config], tuple[str, str]]  # config -> (data fingerprint, weights hash)

TRIALS = "trials"  # folder beside the run directories: the points that Bayesian search has asked for, numbered


@dataclass(frozen=True)
class PlannedRun:
    """A run of the sweep.

    Attributes:
        id: the name of its directory.
        config: resolved, with absolute paths.
        given: the config as the sweep asks for it, before `resolve`.
    """

    id: str
    config: Config
    given: Config
    point: ParameterValues
    directory: Path
    data_fingerprint: str


@dataclass
class SweepPlan:
    """The runs of a sweep.

    Attributes:
        runs: in the order in which they are started.
        points: how many points of the sweep became these runs.
        collapsed: (id of the run, why this point is that run), one for every point that added no run.
        cap: the number of points a Bayesian search may ask for, 0 for other methods: they ask for all at once.
        to_prepare: configs whose data and weights cover those of all runs.
        race: whether further seeds and folds are only for the recipes that win (see racing.py).
    """

    sweep: SweepFile
    identify: Identify
    runs: list[PlannedRun] = field(default_factory=list)
    points: int = 0
    collapsed: list[tuple[str, str]] = field(default_factory=list)
    cap: int = 0
    to_prepare: list[Config] = field(default_factory=list)
    race: bool = False


def make_plan(
    sweep: SweepFile,
    count: int | None,
    identify: Identify,
    race: bool | None = None,
    bring: Callable[[Iterable[Config]], None] = lambda _: None,
) -> SweepPlan:
    """Return the runs of a sweep; reads run directories, writes nothing (but `bring` may).

    Args:
        count: how many points to ask a random or Bayesian search for where the file has no `run_cap`.
        identify: data and weights of a config -> what they are.
        bring: has what configs need on this machine, or raises UserError; called once nothing else is found wrong.
        race: see `Plan`; None to go on as the folder's sweep was begun.

    Raises:
        UserError: with all faults of all points, or what is wrong with data or weights.
    """
    spec, name, method = sweep.spec, sweep.folder.name, sweep.spec["method"]
    cap = spec.get("run_cap") or count
    if method == "grid":
        points = search.grid(spec)[: spec.get("run_cap")]
        configs = check_points(points, sweep)
    elif not cap:
        raise UserError(
            f"{sweep.source}: a {method} search has no end of its own: add `run_cap: 20`, or give --count 20"
        )
    elif method == "random":
        points = [search.draw(spec, name, number) for number in range(cap)]
        configs = check_points(points, sweep)
    else:
        points = [point for point in read_trials(sweep.folder) if in_search_space(spec, point)]
        configs = check_points([*points, *search.probes(spec, name)], sweep)
    plan = SweepPlan(sweep, identify, cap=cap if method == "bayes" and cap else 0)
    plan.to_prepare = _check_places(configs, identify, bring)
    plan.race = bool(documents.read_json_or_empty(sweep.folder / keys.PLAN).get("race")) if race is None else race
    if plan.race and plan.cap:
        raise UserError("--race is for sweeps whose runs are known from the start: a Bayesian search chooses by itself")
    for point in points:
        add(plan, point)
    if not plan.cap:  # a search that learns has an order of its own
        plan.runs = [plan.runs[index] for index in breadth_first([run.config for run in plan.runs])]
    return plan


def check_sweep_file(sweep: SweepFile) -> str:
    """Check all that a sweep file says by itself, whatever this machine has of its data and weights.

    Returns:
        What it is, in words.

    Raises:
        ConfigError: with all faults of all points.
    """
    spec, method = sweep.spec, sweep.spec["method"]
    points = search.grid(spec)[: spec.get("run_cap")] if method == "grid" else search.probes(spec, sweep.folder.name)
    check_points(points, sweep)
    size = f"a grid of {len(points)} points" if method == "grid" else f"a {method} search"
    return f"{sweep.source}: {size}, all of them fields and values that a run takes"


def add(plan: SweepPlan, point: ParameterValues) -> PlannedRun | None:
    """Add a checked point to the plan and return its run, or None if that run is in the plan already."""
    given = parse_config(point, str(plan.sweep.source))
    config = with_absolute_paths(resolve(given))
    data, weights = plan.identify(config)
    name = run_id(config, data, weights)
    plan.points += 1
    same = next((run for run in plan.runs if run.id == name), None)
    if same is not None:
        plan.collapsed.append((name, why_same(same.given, given)))
        return None
    run = PlannedRun(name, config, given, point, plan.sweep.folder / name, data)
    plan.runs.append(run)
    return run


def check_points(points: Iterable[ParameterValues], sweep: SweepFile) -> list[Config]:
    """Return the points' configs.

    Raises:
        ConfigError: with all faults of all points, each told once.
    """
    configs, faults = [], {}
    for point in points:
        try:
            configs.append(parse_config(point, str(sweep.source)))
        except ConfigError as error:
            faults.update(dict.fromkeys(error.faults))
    if faults:
        raise ConfigError(faults, str(sweep.source))
    return configs


def _check_places(
    configs: Iterable[Config], identify: Identify, bring: Callable[[Iterable[Config]], None]
) -> list[Config]:
    """Return one config for each combination of data and weights, all of them found good.

    What can be fetched is brought once nothing else is wrong: a download takes long, and a typo does not wait for it.
    """
    firsts: dict[tuple[object, ...], Config] = {}
    for config in map(resolve, configs):
        split = (config.data, config.split_seed, config.folds, config.fold)
        firsts.setdefault((*split, config.backbone, config.weights, config.image_px), config)
    needed = [with_absolute_paths(config) for config in firsts.values()]
    faults = _faults(needed, identify)
    if all(isinstance(fault, NotDownloadedError) for fault in faults):
        bring(needed)
        faults = _faults(needed, identify)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise UserError("\n".join(map(str, faults)))
    return needed


def _faults(configs: Iterable[Config], identify: Identify) -> list[UserError]:
    """Return what is wrong with data and weights, each fault once."""
    faults: dict[str, UserError] = {}
    for config in configs:
        try:
            identify(config)
        except UserError as error:
            faults.setdefault(str(error), error)
    return list(faults.values())


def why_same(kept: Config, other: Config) -> str:
    """Say in words why two different configs are the same run."""
    fields = [name for name in Config.model_fields if getattr(kept, name) != getattr(other, name)]
    result = resolve(other)
    if "strategy" in fields:
        rest = [f"{name} {getattr(other, name)}" for name in ("unfreeze", "weights") if name in fields]
        return (
            f"{' with '.join([other.strategy, ' and '.join(rest)] if rest else [other.strategy])} is {result.strategy}"
        )
    defaults = [name for name in fields if None in (getattr(kept, name), getattr(other, name))]
    defaults = [name for name in defaults if getattr(result, name) in (getattr(kept, name), getattr(other, name))]
    ignored = [name for name in fields if name not in defaults]
    reasons = [f"{name} {getattr(result, name)} is the default" for name in defaults]
    if set(ignored) <= set(FIELDS_WITHOUT_EFFECT) and other.strategy != "scratch":
        reasons += [f"{name} changes no result" for name in ignored]
    elif ignored:
        reasons.append(f"{other.strategy} ignores {' and '.join(ignored)}")
    return "; ".join(reasons) or "given twice"


def state_of(run: PlannedRun) -> tuple[str, str]:
    """Return the run's state (to do, running, finished, failed or interrupted) and the reason of a failure."""
    state, reason = files.status(run.directory)
    if state != "finished" and claim.is_alive(run.directory):
        return "running", ""
    if state in ("finished", "failed"):
        return state, reason
    return "interrupted" if claim.attempts(run.directory) else "to do", reason


def is_to_do(run: PlannedRun, retry_failed: bool) -> bool:
    """Whether a run is to do: missing, interrupted, or failed and to be tried again."""
    state = state_of(run)[0]
    return state in ("to do", "interrupted") or (state == "failed" and retry_failed)


def states(plan: SweepPlan) -> Counter[str]:
    """Count the plan's runs by state."""
    return Counter(state_of(run)[0] for run in plan.runs)


def store_plan(plan: SweepPlan) -> None:
    """Write the sweep as it is run, and what it asks for, beside its run directories."""
    with raising_write_error(plan.sweep.folder):
        plan.sweep.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(plan.sweep.folder / keys.SWEEP, plan.sweep.text)
    store_runs(plan)


def store_runs(plan: SweepPlan) -> None:
    """Write the ids of the plan's runs; `at_least` says how many more a Bayesian search may still ask for."""
    still = max(plan.cap - plan.points, 0)
    ids = [run.id for run in plan.runs]
    documents.write_json(plan.sweep.folder / keys.PLAN, {"runs": ids, "at_least": len(ids) + still, "race": plan.race})


def read_trials(folder: Path) -> list[ParameterValues]:
    """Return the points that Bayesian search has asked for so far, in their order, up to one that is being written.

    Raises:
        DamagedError: a file holds something else.
    """
    paths = itertools.takewhile(lambda path: path.stat().st_size, sorted((folder / TRIALS).glob("[0-9]*.json")))
    return [documents.read_json(path) or {} for path in paths]


def record_trial(folder: Path, number: int, point: ParameterValues) -> None:
    """Note `point` as trial `number`, unless another agent has just noted one under this number."""
    path, text = folder / TRIALS / f"{number:05d}.json", json.dumps(point) + "\n"
    with raising_write_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if create_exclusive(path, text) or path.stat().st_size:
            return
        if atomic.seconds_since_write(path) >= atomic.STALE_SECONDS:  # whoever was writing it there has been killed
            write_atomic(path, text)


def add_trials(plan: SweepPlan) -> None:
    """Add the points that this agent or another has noted since they were last added."""
    noted = [point for point in read_trials(plan.sweep.folder) if in_search_space(plan.sweep.spec, point)]
    for point in noted[plan.points :]:
        add(plan, point)
    store_runs(plan)


def in_search_space(spec: dict[str, Any], point: ParameterValues) -> bool:
    """Whether a point noted earlier lies in the space that the sweep file spans now."""
    parameters = spec["parameters"]
    if point.keys() != parameters.keys():
        return False
    for name, value in point.items():
        parameter = parameters[name]
        if "value" in parameter and parameter["value"] != value:
            return False
        if "values" in parameter and value not in parameter["values"]:
            return False
        if "min" in parameter and not parameter["min"] <= value <= parameter["max"]:
            return False
    return True

"""Sweep file -> runs, each with its config and directory; points that resolve to the same run become one run."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from finetune.config import Config, parse_config
from finetune.errors import ConfigError, NotDownloadedError, UserError
from finetune.resolve import FIELDS_WITHOUT_EFFECT, SPLIT_FIELDS, recipe, resolve, run_id, with_absolute_paths
from finetune.rundir import claim, files, keys
from finetune.sweep import search, sweep_keys
from finetune.sweep.ordering import breadth_first
from finetune.sweep.search import ParameterValues
from finetune.sweep.sweep_file import SweepFile
from finetune.sweep.trials import in_search_space, read_trials
from finetune.system import documents
from finetune.system.atomic import raising_write_error, write_atomic

MAX_DRAWS = 20  # points of a search for each run that it may have, where points collapse or are no valid config
FingerprintInputs = Callable[[Config], tuple[str, str]]  # config -> (data fingerprint, weights hash)
FetchInputs = Callable[[Iterable[Config]], None]  # downloads missing data and weights, or raises UserError


@dataclass(frozen=True)
class PlannedRun:
    """A run of the sweep."""

    id: str  # the name of its directory
    config: Config  # resolved, with absolute paths
    unresolved: Config  # the config as the sweep file gives it, before `resolve`
    point: ParameterValues  # the sweep's parameters of this run
    directory: Path

    @cached_property
    def recipe(self) -> str:
        """What the runs of one recipe, which differ in seed, fold or split only, have in common."""
        return recipe(self.config)


@dataclass
class SweepPlan:
    """The runs of a sweep.

    Attributes:
        runs: in the order in which they are started.
        points: how many points of the sweep were added so far, collapsed and faulty ones included.
        collapsed: (id of the run, why this point is that run), one for every point that added no run.
        faulty: proposed points that are no valid config, with the fault of each.
        cap: how many different runs a Bayesian search may propose; 0 for other methods, whose points are all known.
        inputs: one config for each combination of data and weights of the runs.
        race: whether further seeds and folds are only for the recipes that win (see racing.py).
    """

    sweep: SweepFile
    fingerprint_inputs: FingerprintInputs
    runs: list[PlannedRun] = field(default_factory=list)
    points: int = 0
    collapsed: list[tuple[str, str]] = field(default_factory=list)
    faulty: list[tuple[ParameterValues, str]] = field(default_factory=list)
    cap: int = 0
    inputs: list[Config] = field(default_factory=list)
    race: bool = False

    @property
    def points_left(self) -> int:
        """How many points a Bayesian search may still propose."""
        missing = self.cap - len(self.runs) - len(self.faulty)  # points that collapsed do not use up the cap
        return max(min(missing, MAX_DRAWS * self.cap - self.points), 0)


def make_plan(
    sweep: SweepFile,
    count: int | None,
    fingerprint_inputs: FingerprintInputs,
    race: bool | None = None,
    fetch_inputs: FetchInputs = lambda _: None,
) -> SweepPlan:
    """Return the runs of a sweep; reads run directories and writes nothing (`fetch_inputs` may).

    Args:
        count: number of points of a random or Bayesian search whose file has no `run_cap`.
        race: see `SweepPlan`; None for the mode in which the folder's sweep was started.
        fetch_inputs: called with a config for each missing data set and weights, once no other fault is found.

    Raises:
        UserError: with the faults of all points, or of data and weights.
    """
    spec = sweep.spec
    cap = spec.get("run_cap") or count
    if spec["method"] != "grid" and not cap:
        raise UserError(
            f"{sweep.source}: a {spec['method']} search has no end of its own: add `run_cap: 20`, or give --count 20"
        )
    plan = SweepPlan(sweep, fingerprint_inputs)
    if spec["method"] == "bayes":
        plan.cap = cap or 0
        points: list[ParameterValues] = []  # added below, from the recorded trials
        configs = [*_valid_trials(sweep), *parse_points(_spanning_points(sweep), sweep)]
    else:
        points = _known_points(sweep, spec.get("run_cap") if spec["method"] == "grid" else cap)
        configs = parse_points(points, sweep)
    plan.inputs = _check_inputs(configs, fingerprint_inputs, fetch_inputs)
    plan.race = bool(documents.read_json_or_empty(sweep.folder / keys.PLAN).get("race")) if race is None else race
    if plan.race and plan.cap:
        raise UserError("--race is for sweeps whose runs are known from the start: a Bayesian search chooses by itself")
    for point in points:
        add_point(plan, point)
    if plan.cap:
        add_trials(plan)
    else:
        plan.runs = [plan.runs[index] for index in breadth_first([run.config for run in plan.runs])]
    return plan


def check_sweep_file(sweep: SweepFile) -> str:
    """Check everything in a sweep file that does not depend on this machine's data and weights; return a summary line.

    Raises:
        ConfigError: with the faults of all points.
    """
    spec, method = sweep.spec, sweep.spec["method"]
    points = search.grid_points(spec) if method == "grid" else _spanning_points(sweep)
    configs = parse_points(points, sweep)
    size = f"a grid of {len(points)} points" if method == "grid" else f"a {method} search"
    stops = ""
    if "early_terminate" in spec:
        epochs = max(config.epochs for config in configs)
        found = sweep_keys.bands(spec["early_terminate"], epochs)
        stops = f"; hyperband compares runs after {', '.join(map(str, found)) or 'none'} of {epochs} epochs"
    return f"{sweep.source}: {size}; all fields and values are valid{stops}"


def _spanning_points(sweep: SweepFile) -> list[ParameterValues]:
    """Return points from all over a search space, without those that only a distribution without bounds spoils."""
    points = search.spanning_points(sweep.spec, sweep.folder.name)
    if any("mu" in parameter for parameter in sweep.spec["parameters"].values()):
        return [point for point in points if _config_or_none(point, sweep) is not None] or points
    return points


def _known_points(sweep: SweepFile, cap: int | None) -> list[ParameterValues]:
    """Return the points of a grid or random search: all, or those that make `cap` different runs.

    Points that collapse into one run do not use up the cap, but a small space ends the draws (`MAX_DRAWS`).
    """
    points: list[ParameterValues] = []
    runs: set[str] = set()
    for point in _all_points(sweep):
        if cap and (len(runs) == cap or len(points) == MAX_DRAWS * cap):
            break
        points.append(point)
        config = _config_or_none(point, sweep)
        runs.add(repr(point) if config is None else run_id(config, config.data, config.weights))
    return points


def _all_points(sweep: SweepFile) -> Iterator[ParameterValues]:
    """Yield the points of a grid, or those of a random search without end.

    Draws from a distribution without bounds, such as `normal`, may be no valid config: they are passed over.
    """
    if sweep.spec["method"] == "grid":
        yield from search.grid_points(sweep.spec)
        return
    is_unbounded = any("mu" in parameter for parameter in sweep.spec["parameters"].values())
    for number in itertools.count():
        point = search.draw_point(sweep.spec, sweep.folder.name, number)
        if not is_unbounded or _config_or_none(point, sweep) is not None:
            yield point


def _config_or_none(point: ParameterValues, sweep: SweepFile) -> Config | None:
    try:
        return parse_config(point, str(sweep.source))
    except ConfigError:
        return None


def parse_points(points: Iterable[ParameterValues], sweep: SweepFile) -> list[Config]:
    """Return the points' configs.

    Raises:
        ConfigError: with the faults of all points, each named once.
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


def _valid_trials(sweep: SweepFile) -> list[Config]:
    """Return the configs of recorded trials; a proposal with a fault is left out (see `add_trials`)."""
    configs = [_config_or_none(point, sweep) for point in _trials_in_space(sweep)]
    return [config for config in configs if config is not None]


def _trials_in_space(sweep: SweepFile) -> list[ParameterValues]:
    return [point for point in read_trials(sweep.folder) if in_search_space(sweep.spec, point)]


def _check_inputs(
    configs: Iterable[Config], fingerprint_inputs: FingerprintInputs, fetch_inputs: FetchInputs
) -> list[Config]:
    """Return one config for each combination of data and weights, after checking that all of them can be read.

    Missing files are fetched only when nothing else is wrong: a download takes long, and should not delay the message
    about a typo.
    """
    firsts: dict[tuple[object, ...], Config] = {}
    for config in map(resolve, configs):
        split = (getattr(config, name) for name in SPLIT_FIELDS)
        firsts.setdefault((*split, config.backbone, config.weights, config.image_px), config)
    inputs = [with_absolute_paths(config) for config in firsts.values()]
    faults = _faults(inputs, fingerprint_inputs)
    if all(isinstance(fault, NotDownloadedError) for fault in faults):
        fetch_inputs(inputs)
        faults = _faults(inputs, fingerprint_inputs)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise UserError("\n".join(map(str, faults)))
    return inputs


def _faults(configs: Iterable[Config], fingerprint_inputs: FingerprintInputs) -> list[UserError]:
    """Return the faults of data and weights, each once."""
    faults: dict[str, UserError] = {}
    for config in configs:
        try:
            fingerprint_inputs(config)
        except UserError as error:
            faults.setdefault(str(error), error)
    return list(faults.values())


def add_point(plan: SweepPlan, point: ParameterValues) -> None:
    """Add a valid point to the plan: a new run, or one more point of a run that is already planned."""
    unresolved = parse_config(point, str(plan.sweep.source))
    config = with_absolute_paths(resolve(unresolved))
    name = run_id(config, *plan.fingerprint_inputs(config))
    plan.points += 1
    same = next((run for run in plan.runs if run.id == name), None)
    if same is None:
        plan.runs.append(PlannedRun(name, config, unresolved, point, plan.sweep.folder / name))
    else:
        plan.collapsed.append((name, collapse_reason(same.unresolved, unresolved)))


def add_trials(plan: SweepPlan) -> Sequence[str]:
    """Add the trials that this agent or another has recorded since the last call; return the faults of new ones.

    A Bayesian search may propose a point that is no valid config, such as warmup_epochs above epochs. It counts as a
    point that failed.
    """
    faults = []
    for point in _trials_in_space(plan.sweep)[plan.points :]:
        try:
            add_point(plan, point)
        except UserError as error:
            plan.points += 1
            plan.faulty.append((point, str(error)))
            faults.append(str(error))
    return faults


def collapse_reason(kept: Config, other: Config) -> str:
    """Return why two configs of a sweep file are the same run, as a sentence fragment."""
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
    """Return a run's state (to do, running, finished, failed or interrupted) and the reason of a failure."""
    state, reason = files.status(run.directory)
    if state != "finished" and claim.is_alive(run.directory):
        return "running", ""
    if state in ("finished", "failed"):
        return state, reason
    return "interrupted" if claim.attempts(run.directory) else "to do", reason


def is_pending(run: PlannedRun, retry_failed: bool) -> bool:
    """Return whether a run is still to be started: new, interrupted, or failed and to be retried."""
    state = state_of(run)[0]
    return state in ("to do", "interrupted") or (state == "failed" and retry_failed)


def count_states(plan: SweepPlan) -> Counter[str]:
    """Count the plan's runs by state."""
    return Counter(state_of(run)[0] for run in plan.runs)


def store_plan(plan: SweepPlan) -> None:
    """Write the sweep as it is run (with --set applied) and the ids of its runs into its folder."""
    with raising_write_error(plan.sweep.folder):
        plan.sweep.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(plan.sweep.folder / keys.SWEEP, plan.sweep.text)
    store_runs(plan)


def store_runs(plan: SweepPlan) -> None:
    """Write the ids of the plan's runs; `at_least` adds the points that a Bayesian search may still propose."""
    ids = [run.id for run in plan.runs]
    stored = documents.read_json_or_empty(plan.sweep.folder / keys.PLAN)
    is_continued = plan.sweep.source.parent.resolve() == plan.sweep.folder.resolve()
    source = stored.get("source") if is_continued else str(plan.sweep.source.resolve())
    content = {"runs": ids, "at_least": len(ids) + plan.points_left, "race": plan.race, "source": source}
    documents.write_json(plan.sweep.folder / keys.PLAN, content)

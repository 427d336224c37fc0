"""Each key of a sweep file: what it does here and on W&B, and why some are refused.

W&B's client takes keys that this project's runs could not honour. They would be ignored offline, or end every run
online, so a file that has one is refused, with what to write instead. docs/sweeps.md has the same table.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from finetune.config import Config
from finetune.errors import nearest

REFUSED = "refused"
LABEL = "a label, without effect"


class SweepKey(NamedTuple):
    """A key of W&B's schema.

    Attributes:
        here: its effect in an offline sweep.
        on_wandb: its effect on a W&B server.
    """

    here: str
    on_wandb: str


# Keys of the file, and `metric.` and `early_terminate.` those of its sections.
KEYS = {
    "apiVersion": SweepKey(LABEL, LABEL),
    "kind": SweepKey(LABEL, LABEL),
    "description": SweepKey(LABEL, "shown on its page"),
    "name": SweepKey("a label; the folder is named by the file or by --name", "shown on its page"),
    "entity": SweepKey("where `make publish` sends nothing by itself: a label", "owner of the sweep"),
    "project": SweepKey("a label", "project of the sweep"),
    "program": SweepKey("must be agent.py", "must be agent.py"),
    "method": SweepKey("grid, random or bayes", "grid, random or bayes"),
    "parameters": SweepKey("the fields of a run", "the fields of a run"),
    "run_cap": SweepKey("at most so many different runs", "at most so many points"),
    "metric": SweepKey("steers bayes and early_terminate", "steers bayes and early_terminate"),
    "metric.name": SweepKey("a metric of val", "a metric of val"),
    "metric.goal": SweepKey("maximize or minimize", "maximize or minimize"),
    "metric.impute": SweepKey("what bayes takes for failed runs", "what bayes takes for failed runs"),
    "metric.impute_while_running": SweepKey("what bayes takes for running runs", "what bayes takes for running runs"),
    "metric.target": SweepKey(REFUSED, REFUSED),
    "early_terminate": SweepKey("hyperband", "hyperband"),
    "early_terminate.type": SweepKey("hyperband", "hyperband"),
    "early_terminate.min_iter": SweepKey("first band, in epochs", "first band, in epochs"),
    "early_terminate.max_iter": SweepKey("with `s`: bands counted back from here", "the same"),
    "early_terminate.s": SweepKey("with `max_iter`: number of bands", "the same"),
    "early_terminate.eta": SweepKey("factor from band to band", "the same"),
    "early_terminate.strict": SweepKey("stop more runs", "the same"),
    "command": SweepKey("only the default words", "only the default words"),
    "controller": SweepKey("only type: cloud, the default", "only type: cloud, the default"),
    "metrics": SweepKey(REFUSED, REFUSED),
    "scheduler": SweepKey(REFUSED, REFUSED),
    "job": SweepKey(REFUSED, REFUSED),
    "image_uri": SweepKey(REFUSED, REFUSED),
}
ADVICE = {
    "metrics": "several metrics need a scheduler of W&B's: give one `metric`",
    "scheduler": "a scheduler of W&B's can't start these runs: use method: grid, random or bayes",
    "job": "jobs of W&B Launch can't start these runs: leave it out; program: agent.py does",
    "image_uri": "images of W&B Launch can't start these runs: leave it out; program: agent.py does",
    "metric.target": "W&B would start no further run once one reaches it, and the comparison would lack some: leave "
    "it out, or set run_cap",
}
COMMAND_WORDS = (
    r"\$\{env\}|/usr/bin/env",
    r"\$\{interpreter\}|python[\d.]*",
    r"\$\{program\}|agent\.py",
    r"\$\{args\}",
)


def key_faults(spec: Mapping[str, Any]) -> list[str]:
    """Return why keys and values of a sweep file can't be honoured, each with what to write instead."""
    names = [*spec, *(f"{part}.{name}" for part in ("metric", "early_terminate") for name in _section(spec, part))]
    faults = [f"{name}: {ADVICE[name]}" for name in names if name in ADVICE]
    faults += [f"{name}: no such key.{nearest(name, KEYS)}" for name in names if name not in KEYS]
    for name, check in _CHECKS.items():
        if name in spec and (fault := check(spec[name])):
            faults.append(f"{name}: {fault}")
    return faults + _early_stopping_faults(_section(spec, "early_terminate")) + _parameter_faults(spec["parameters"])


def bands(early_terminate: Mapping[str, Any], epochs: int) -> list[int]:
    """Return the epochs after which hyperband compares runs of so many `epochs`, as W&B's engine computes them."""
    eta = float(early_terminate.get("eta", 3))
    if "min_iter" in early_terminate:
        found, band = [], float(early_terminate["min_iter"])
        while band <= epochs and eta > 1:
            found.append(int(band))
            band *= eta
        return found
    quotients = [early_terminate["max_iter"] / eta**step for step in range(1, int(early_terminate["s"]) + 1)]
    return sorted(int(band) for band in quotients if 1 <= band <= epochs)


def _section(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = spec.get(name)
    return section if isinstance(section, dict) else {}


def _command_fault(words: Any) -> str:
    """Return what is wrong with a command that W&B's agent would run; "" for the default, however it is written."""
    texts = [str(word) for word in words] if isinstance(words, list) else []
    rest: Sequence[str] = COMMAND_WORDS
    for text in texts:
        rest = next((rest[index + 1 :] for index, word in enumerate(rest) if re.fullmatch(word, text)), ["never"])
    if texts and not rest:
        return ""
    return (
        "only W&B's own ${env} ${interpreter} ${program} ${args} is honoured here and there: leave it out, and write "
        "fixed flags as parameters, such as `epochs: {value: 5}` for --epochs=5"
    )


def _controller_fault(controller: Any) -> str:
    kind = controller.get("type") if isinstance(controller, dict) else controller
    return "" if kind == "cloud" else "a local controller is not started here: leave it out; agent.py runs the sweep"


def _program_fault(program: Any) -> str:
    return "" if program in ("agent.py", "./agent.py") else f"{program!r} is not run here: write program: agent.py"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "command": _command_fault,
    "controller": _controller_fault,
    "program": _program_fault,
}


def _early_stopping_faults(section: Mapping[str, Any]) -> list[str]:
    if not section:
        return []
    if "min_iter" in section and {"max_iter", "s"} & section.keys():
        return [
            "early_terminate: min_iter counts bands forwards, max_iter and s count them backwards: give min_iter (and "
            "eta), or max_iter and s (and eta)"
        ]
    eta = section.get("eta", 3)
    if not isinstance(eta, int | float) or eta <= 1:
        return [f"early_terminate: eta is the factor from band to band, and must be above 1, not {eta}"]
    numbers = {name: section[name] for name in ("min_iter", "max_iter", "s") if name in section}
    wrong = {name: value for name, value in numbers.items() if not isinstance(value, int) or value < 1}
    if wrong:
        return [
            f"early_terminate: {name} must be a whole number from 1 on, not {value}" for name, value in wrong.items()
        ]
    if "max_iter" in numbers and "s" in numbers and not bands(section, numbers["max_iter"]):
        return [f"early_terminate: with max_iter {numbers['max_iter']} and eta {eta} there is no band: raise max_iter"]
    return []


def _parameter_faults(parameters: Mapping[Any, Any]) -> list[str]:
    faults = []
    for name, parameter in parameters.items():
        if not isinstance(name, str):
            faults.append(f"{name}: YAML reads this name as {type(name).__name__}: put it in quotes")
        elif "parameters" in parameter:
            faults.append(f"{name}: a run's fields are flat: write the nested parameters one level up")
        elif _has_distribution(parameter.get("values")):
            faults.append(
                f"{name}: a distribution among `values` is not drawn from: list values, such as [0, 1.0e-4, 1.0e-3]"
            )
        elif _is_whole_by_accident(name, parameter):
            low, high = parameter["min"], parameter["max"]
            faults.append(
                f"{name}: from min: {low} to max: {high}, W&B draws whole numbers only: write min: {low}.0 and max: "
                f"{high}.0, or distribution: int_uniform if that is meant"
            )
    return faults


def _has_distribution(values: Any) -> bool:
    return isinstance(values, list) and any(isinstance(value, dict) for value in values)


def _is_whole_by_accident(name: str, parameter: Mapping[str, Any]) -> bool:
    """Return whether a field of real numbers would get whole numbers only, because of how its bounds are written."""
    low, high = parameter.get("min"), parameter.get("max")
    is_whole = isinstance(low, int) and isinstance(high, int) and "distribution" not in parameter
    return is_whole and name in Config.model_fields and "float" in str(Config.model_fields[name].annotation)

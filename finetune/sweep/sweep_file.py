"""Sweep files, in the format of `wandb sweep`: find, read, change by --set, and check them."""

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune.config import Config
from finetune.errors import ConfigError, UserError, nearest
from finetune.rundir import files, keys
from finetune.sweep import search, sweep_keys
from finetune.system import documents
from finetune.system.redaction import redact

RUNS = Path("runs")
DEFAULT = Path("sweeps/strategies.yaml")

# Metrics that may steer a search. The test set is read once, at the end: it must not choose anything.
KEPT_COMMENT = "# Claims: "  # which the analysis reads; other comments may not hold once parameters are replaced
METRICS = [key for key in {**keys.SUMMARY_KEYS, **keys.HISTORY_KEYS} if not key.startswith("test/")]
TEXT_FIELDS = [name for name, field in Config.model_fields.items() if field.annotation is str]
PATH_FIELDS = ("data", "weights")  # which may have commas
NAMED_DATA_SETS = ("inaturalist12k", "demo")


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep."""

    folder: Path  # of its run directories; the folder's name is the sweep's name
    source: Path  # the file it was read from
    spec: dict[str, Any]  # the file's content, with --set applied
    text: str  # the YAML text of `spec`, which is stored beside the runs


def load(argument: str | None, settings: Sequence[str] = (), name: str | None = None) -> SweepFile:
    """Read a sweep.

    Args:
        argument: a sweep file, the folder of an earlier sweep, or None: the newest unfinished one, else DEFAULT.
        settings: `key=value` texts that replace parameters.
        name: the sweep's name (default: the file's stem, or the folder's name).

    Raises:
        UserError: the file is no valid sweep; the message has all faults.
    """
    path = Path(argument) if argument else newest_unfinished(RUNS) or DEFAULT
    if name is not None and not re.fullmatch(r"[\w.+-]*\w[\w.+-]*", name):
        raise UserError(f"--name {name!r}: a name is letters, digits, '.', '_', '+' and '-'; it becomes runs/NAME")
    if path.is_dir():
        source, folder = path / keys.SWEEP, path.resolve().parent / name if name else path
        if not source.is_file():
            raise UserError(f"{path} is a folder without {keys.SWEEP}: give a sweep file, or the folder of a sweep")
    else:
        source, folder = path, RUNS / (name or path.stem)
    text = _read_text(source)
    spec = _read_yaml(text, source)
    fixed = _absolute_paths(spec, _parse_settings(settings))
    if fixed:
        spec["parameters"] = {**spec["parameters"], **fixed}
        kept = [line + "\n" for line in text.splitlines() if line.startswith(KEPT_COMMENT)]
        text = f"# {source.name} with some parameters replaced\n{''.join(kept)}{yaml.safe_dump(spec, sort_keys=False)}"
    refuse_secrets(text, source)
    _check(spec, source)
    return SweepFile(folder, source, spec, text)


def refuse_secrets(text: str, source: Path) -> None:
    """Raise ConfigError if the text of a sweep holds a secret: the text is stored beside the runs and sent to W&B.

    The secret is not replaced by `***`, as a command or an address without its secret would be another one.
    """
    lines = [redact(line).strip() for line in text.splitlines() if redact(line) != line]
    if lines:
        advice = (
            "a sweep is stored beside its runs, and sent to W&B: take the password, token or key out, and pass it by "
            "an environment variable or ~/.netrc"
        )
        raise ConfigError([f"`{line}`: {advice}" for line in dict.fromkeys(lines)], str(source))


def newest_unfinished(runs: Path) -> Path | None:
    """Return the folder of the sweep that was started last and still has pending runs, None if there is none."""
    stored = sorted(runs.glob(f"*/{keys.SWEEP}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in stored if is_unfinished(path.parent)), None)


def is_unfinished(folder: Path) -> bool:
    """Return whether a sweep that was started offline still has pending runs."""
    plan = {"runs": [], **documents.read_json_or_empty(folder / keys.PLAN)}
    open_runs = [run for run in plan["runs"] if files.status(folder / run)[0] not in ("finished", "failed")]
    return bool(open_runs) or len(plan["runs"]) < plan.get("at_least", 0)


def _read_text(source: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with its byte order mark, as PowerShell writes it."""
    try:
        content = source.read_bytes()
        encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        return content.decode(encoding).replace("\r\n", "\n")
    except FileNotFoundError:
        others = [str(path) for path in sorted(source.parent.glob("*.yaml"))]
        known = f" Files there: {', '.join(others)}." if others else ""
        raise UserError(
            f"{source}: no such sweep file.{nearest(str(source), others)}{known} Give the id or entity/project/id of "
            "a sweep on W&B, or runs/NAME for one that was started here"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source} can't be read as text in UTF-8 ({error}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{source} can't be read as a sweep file: {error}") from error


def _read_yaml(text: str, source: Path) -> dict[str, Any]:
    """Return the mapping in `text`, whose `parameters` is a mapping of mappings."""
    try:
        spec = documents.load_yaml(text)
        twice = documents.duplicate_keys(text)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML: {error}") from error
    if twice:
        raise ConfigError(
            [f"{name}: given in lines {first} and {second}; only one may stay" for name, first, second in twice],
            str(source),
        )
    if spec is None:
        raise UserError(f"{source} is empty: a sweep file has `method` and `parameters`, see {DEFAULT}")
    if not isinstance(spec, dict):
        raise UserError(f"{source} holds a {type(spec).__name__}, not `key: value` lines: see {DEFAULT}")
    parameters = spec.get("parameters")
    if parameters is None:
        raise UserError(
            f"{source} has no `parameters`: give it at least one, such as `parameters: {{lr: {{value: 1.0e-3}}}}`"
        )
    if not isinstance(parameters, dict):
        raise UserError(f"{source}: `parameters` is a {type(parameters).__name__}, not `name: {{values: [...]}}` lines")
    bare = {name: value for name, value in parameters.items() if not isinstance(value, dict)}
    if bare:
        key = {name: "values" if isinstance(value, list) else "value" for name, value in bare.items()}
        raise ConfigError(
            [f"{name}: write {name}: {{{key[name]}: {value}}}" for name, value in bare.items()], str(source)
        )
    return spec


def _parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the parameters of --set as in a sweep file: {"value": x} or {"values": [...]}."""
    fixed: dict[str, dict[str, Any]] = {}
    faults = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            faults.append(f"{setting!r} has no '=': write --set key=value, such as --set epochs=3")
        else:  # an unknown name is reported with all other faults of the sweep
            try:
                fixed[name] = _as_parameter(name, _parse_setting(name, text))
            except yaml.YAMLError:
                faults.append(f"{name}: {text!r} is not a YAML value")
    if faults:
        raise ConfigError(faults, "--set")
    return fixed


def _parse_setting(name: str, text: str) -> Any:
    """Return the value of a --set; `1e-3,3e-3` is a list, as shells take brackets for patterns.

    A field that is a text takes it as it is: 2024_05_01 would be a number in YAML.
    """
    is_text = name in TEXT_FIELDS
    if name != "unfreeze" and not text.lstrip().startswith("["):
        parts = [text] if name in PATH_FIELDS else text.split(",")
        values = [part.strip() if is_text else documents.load_yaml(part) for part in parts]
        return values[0] if len(values) == 1 else values
    value = documents.load_yaml(text)
    if is_text and isinstance(value, list):
        return [part.strip().strip("'\"") for part in text.strip()[1:-1].split(",")]
    return value


def _as_parameter(name: str, value: Any) -> dict[str, Any]:
    """Return a list as the values to sweep over, anything else, such as a schedule (a list of pairs), as one value."""
    if not isinstance(value, list):
        return {"value": value}
    if name == "unfreeze" and not all(item is None or (item and isinstance(item[0], list)) for item in value):
        return {"value": value}
    return {"values": value}


def _absolute_paths(spec: dict[str, Any], fixed: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return `fixed`, and the parameters whose relative paths have to be absolute in the stored sweep."""
    parameters = {**spec["parameters"], **fixed}
    for name in {"data", "weights"} & parameters.keys():
        parameter = parameters[name]
        values = parameter.get("values", [parameter.get("value")])
        if isinstance(values, list) and any(_is_relative_path(value) for value in values):
            absolute = [str(Path(value).resolve()) if _is_relative_path(value) else value for value in values]
            fixed[name] = {"values": absolute} if "values" in parameter else {"value": absolute[0]}
    return fixed


def _is_relative_path(value: Any) -> bool:
    if not isinstance(value, str) or value in NAMED_DATA_SETS:
        return False
    return bool(value) and not Path(value).is_absolute() and Path(value).exists()


def _check(spec: dict[str, Any], source: Path) -> None:
    """Raise ConfigError with all reasons why this project can't run a sweep."""
    faults = sweep_keys.key_faults(spec) or search.schema_faults(spec)
    method = spec.get("method")
    if method == "custom":
        faults.append("method: custom needs a scheduler of W&B's; here: grid, random, bayes")
    objective = spec["metric"] if isinstance(spec.get("metric"), dict) else {}
    metric = objective.get("name")
    if str(metric).startswith("test/"):
        faults.append(f"metric: {metric!r} is measured on the test set, which must not choose: use best/val_accuracy")
    elif metric is not None and metric not in METRICS:
        faults.append(f"metric: {metric!r} is not measured.{nearest(str(metric), METRICS)} Known: {', '.join(METRICS)}")
    elif metric is None and (method == "bayes" or "early_terminate" in spec):
        faults.append("metric: bayes and early_terminate need one: {name: best/val_accuracy, goal: maximize}")
    elif "early_terminate" in spec and not str(metric).startswith("best/"):
        faults.append(
            f"metric: with {metric}, early_terminate would stop a schedule before its last unfreeze: "
            "use best/val_accuracy, which counts from then on"
        )
    elif metric is not None and "goal" not in objective:
        faults.append("metric: add `goal: maximize` or `goal: minimize`; W&B's default is minimize")
    fold = spec["parameters"].get("fold", {"value": None})
    if method in ("random", "bayes") and "value" not in fold:
        faults.append(
            f"fold: a {method} search would draw a fold for each run, and compare recipes on different images: "
            "use method: grid, or one fold, as `value`"
        )
    if faults:
        raise ConfigError(faults, str(source))

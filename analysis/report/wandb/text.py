"""What a W&B report says in words: the question, how it was measured, how to make it again. Plain text, no markup."""

from typing import Any

import pandas as pd
import yaml

from analysis.report.shell import command_for
from analysis.sources.test_sets import REPEATS
from analysis.tables.replicates import join_replicate_labels
from analysis.formatting import percent
from finetune.system import documents

GENERAL = "Which fine-tuning recipe suits these pictures, what does it cost, and how sure are we?"
OPENING = "Question:"  # begins the comment at the top of a sweep file
USUAL = ("strategy", "lr", "seed")  # what a sweep varies, where there is no sweep file to tell


def question(sweep_text: str | None) -> str:
    """Return what a sweep file asks: its `description`, else the comment at its top, else the general question."""
    described = _spec(sweep_text).get("description")
    if isinstance(described, str) and described.strip():
        return " ".join(described.split())
    return _opening_comment(sweep_text or "") or GENERAL


def report_title(sweep_text: str | None) -> str:
    """Return the name that a sweep file gives to its sweep, or nothing."""
    return " ".join(str(_spec(sweep_text).get("name") or "").split())


def _opening_comment(text: str) -> str:
    """Return the first paragraph of the leading comment if it begins with OPENING, without that word."""
    said: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.lstrip("#").strip()
        if said and not words:
            break
        if said or words.startswith(OPENING):
            said.append(words)
    words = " ".join(said).removeprefix(OPENING).strip()
    return words[:1].upper() + words[1:]


def _spec(text: str | None) -> dict[str, Any]:
    """Return what a sweep file holds; nothing where it is no sweep file."""
    try:
        spec = documents.load_yaml(text or "")
    except yaml.YAMLError:
        return {}
    return spec if isinstance(spec, dict) else {}


def swept(sweep_text: str | None, runs: pd.DataFrame) -> dict[str, bool]:
    """Return the fields that the sweep varies, each with whether a logarithmic axis suits its values.

    Args:
        runs: one row a run, with the config's fields for columns.
    """
    asked = _spec(sweep_text).get("parameters")
    names = [str(name) for name, given in asked.items() if _varies(given)] if isinstance(asked, dict) else list(USUAL)
    return {name: _is_logarithmic(name, runs[name]) for name in names if name in runs and _kinds(runs[name]) > 1}


def _varies(given: Any) -> bool:
    """Whether a sweep file gives a parameter more than one value: several `values`, or a distribution."""
    if not isinstance(given, dict) or "value" in given:
        return False
    return len(given["values"]) > 1 if isinstance(given.get("values"), list) else True


def _kinds(values: "pd.Series[Any]") -> int:
    return values.map(str).nunique()  # a schedule is a list, which has no hash


def _is_logarithmic(name: str, values: "pd.Series[Any]") -> bool:
    """Whether numbers are all above 0 and at least three times apart, as rates are."""
    numbers = pd.to_numeric(values, errors="coerce") if values.dtype != bool else pd.Series([float("nan")])
    return name not in REPEATS and bool(
        numbers.notna().all() and numbers.min() > 0 and numbers.max() >= 3 * numbers.min()
    )


def measured_text(report: dict[str, Any]) -> list[str]:
    """Return how the numbers came about, a sentence or two each.

    Args:
        report: the content of report.json.
    """
    data, runs, origin = report["data"], report["runs"], report["origin"]
    one = report["repeated_over"]
    left_out = f", {runs['left_out']} left out" if runs["left_out"] else ""
    made = "; ".join(f"{name} {', '.join(values)}" for name, values in origin.items())
    return [
        f"Data: {data['name']}{_counts(data)}.",
        *([f"Splits: {'; '.join(data['splits_from'])}."] if data["splits_from"] else []),
        *_without_learning(data),
        f"Val chooses, test is read once: val accuracy chose the epoch of each run and, by its mean over {one}s, the "
        "recipe of each strategy. Test was read once a run, at that epoch, and chose nothing.",
        f"A recipe's mean is over {join_replicate_labels(row['over'] for row in report['strategies'])}. The spread says what "
        f"another {one} would change; the 95% interval says where the accuracy may lie on other pictures of the same "
        f"kind and with other {one}s: both were drawn anew (for one run: Wilson's, over pictures).",
        "Compute saved is counted in FLOPs, against training every block from the first epoch on. Time saved is "
        "measured, against the recipe chosen for full, filling caches included: the run that comes first does that for "
        "all, and the table tells its mean over runs apart. Frozen shares are means over epochs.",
        f"Runs: {runs['finished']} finished{left_out}.",
        *([f"Made with {made}."] if made else []),
    ]


def _counts(data: dict[str, Any]) -> str:
    """Return how many classes and pictures there are, as far as that is known, with the comma before it."""
    splits = data["splits"]
    classes = f", {len(data['classes'])} classes" if data["classes"] else ""
    if not all(splits.values()):
        return classes
    return f"{classes}, {splits['train']} training, {splits['val']} val and {splits['test']} test pictures"


def _without_learning(data: dict[str, Any]) -> list[str]:
    """Return what an answer without looking would score."""
    said = []
    if data["chance"] is not None:
        said.append(f"Guessing would get {percent(data['chance'])} of the test pictures right.")
    if data["majority_share"] is not None:
        share = percent(data["majority_share"])
        said.append(f"Always answering “{data['majority_class']}”, the largest class, would get {share} right.")
    return [" ".join(said)] if said else []


def commands_text(sweep: str, has_file: bool, best: str | None) -> str:
    """Return the commands that make all of it again.

    Args:
        sweep: entity/project/id.
        has_file: whether the sweep file follows.
        best: the command of the best run, where it is known.
    """
    steps = [
        ("the runs, from the sweep file below", "make agents SWEEP=sweeps/again.yaml") if has_file else None,
        ("the comparison, from the runs on W&B", command_for("make", "analysis", f"SWEEP={sweep}")),
        ("this report, renewed", command_for("make", "report", f"SWEEP={sweep}")),
        ("the run whose predictions are shown", best) if best else None,
    ]
    return "\n".join(f"# {what}\n{command}" for what, command in filter(None, steps))

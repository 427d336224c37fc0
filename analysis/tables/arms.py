"""Arms: what a sweep compares. An arm is a strategy with every other field that the sweep varies on purpose.

Fields that val tunes within an arm (`TUNED_FIELDS`) and replicates (seed, fold) do not make arms.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from analysis.errors import InputError
from analysis.formatting import sort_strategies
from analysis.sources.sweep import Sweep
from analysis.tables.recipes import format_value, independent_fields
from finetune.config import Config
from finetune.errors import nearest
from finetune.resolve import TUNED_FIELDS

SELF_EXPLAINING = ("strategy", "augment", "backbone", "precision", "unfreeze", "data")  # values that need no field name


@dataclass(frozen=True)
class ArmFields:
    """Which fields make arms, and which ones val tunes within an arm.

    Attributes:
        by: at least one field.
        tuned: the tuned fields that the sweep varies.
    """

    by: tuple[str, ...]
    tuned: tuple[str, ...]


def find_arm_fields(recipes: Iterable[str], by: Sequence[str] = (), tuned: Sequence[str] = ()) -> ArmFields:
    """Return what makes arms of these recipes.

    Args:
        recipes: as JSON text.
        by: fields that make arms, in place of those found; all others that vary are then tuned.
        tuned: fields beside TUNED_FIELDS that val tunes.

    Raises:
        InputError: a field of `by` or `tuned` does not exist.
    """
    by = tuple(dict.fromkeys(by))
    _check_fields(by, "--by")
    _check_fields(tuned, "--tuned")
    fields = [json.loads(recipe) for recipe in recipes]
    if by:
        varied = independent_fields(fields, [*by, *TUNED_FIELDS])
        return ArmFields(tuple(by), tuple(name for name in varied if name not in by))
    # Rates are left out at first: in a random search they differ in every run, so that all else would follow from them.
    fixed = [{name: value for name, value in recipe.items() if name not in TUNED_FIELDS} for recipe in fields]
    arm_fields = [name for name in independent_fields(fixed, ("strategy", "backbone", *tuned)) if name not in tuned]
    order = [name for name in (*TUNED_FIELDS, *tuned) if name not in arm_fields]
    rates = [{name: recipe.get(name) for name in (*arm_fields, *order)} for recipe in fields]
    varied = independent_fields(rates, (*arm_fields, *order))
    return ArmFields(tuple(arm_fields) or ("strategy",), tuple(name for name in varied if name in order))


def _check_fields(names: Iterable[str], flag: str) -> None:
    for name in names:
        if name not in Config.model_fields:
            raise InputError(f"{flag} {name}: no such field.{nearest(name, list(Config.model_fields))}")


def name_arm(recipe: str, fields: Sequence[str]) -> str:
    """Return an arm's name: the values of its fields, such as `partial` or `partial, standard` or `image_px 96`."""
    values = json.loads(recipe)
    return ", ".join(
        format_value(name, values.get(name))
        if name in SELF_EXPLAINING
        else f"{name} {format_value(name, values.get(name))}"
        for name in fields
    )


def with_arms(sweep: Sweep, fields: ArmFields) -> Sweep:
    """Return the sweep with a column `arm` in its runs; it is missing where a run's config is unknown."""
    runs = sweep.runs
    names = {recipe: name_arm(recipe, fields.by) for recipe in runs["recipe"].dropna().unique() if recipe}
    return replace(sweep, runs=runs.assign(arm=runs["recipe"].map(names)))


def sort_arms(arms: Iterable[str]) -> list[str]:
    """Return the distinct arms: by strategy in the order of strategies, then by name."""
    distinct = set(arms)
    order = {name: rank for rank, name in enumerate(sort_strategies(arm.split(", ")[0] for arm in distinct))}
    return sorted(distinct, key=lambda arm: (order[arm.split(", ")[0]], _natural(arm)))


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Return a key that sorts numbers in a text by value."""
    key = []
    for word in text.replace(",", " ").split():
        try:
            key.append((0, float(word.rstrip("%")), ""))
        except ValueError:
            key.append((1, 0.0, word))
    return key

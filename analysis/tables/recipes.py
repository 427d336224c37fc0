"""The labels of recipes, the fields in which they differ, and how much val accuracy depends on each field.

A recipe is everything that decides a run but seed, fold and split (`finetune.resolve.recipe_key`), as JSON text.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import sort_strategies
from analysis.stats.importance import permutation_importance

FIRST_NAMED = ("lr", "unfreeze", "backbone_lr", "block_decay")  # the fields that begin a label
CHANCE = ("seed", "fold")  # not settings: the reference for what chance explains
MAX_SETTINGS = 8  # as many as a figure has room for
# Fields in which recipes of different strategies may differ without making the comparison unfair.
OF_STRATEGY = (
    "strategy",
    "lr",
    "backbone_lr",
    "unfreeze",
    "block_decay",
    "rewarm_epochs",
    "weights",
    "views",
    "start_px",
)


def distinguishing_labels(recipes: Iterable[str]) -> dict[str, str]:
    """Return recipe -> the fields that distinguish it from the others of its strategy, such as "lr 0.001".

    Fields that follow from others (a backbone rate that is a share of lr) are left out; lr never is.
    """
    by_strategy: dict[str, dict[str, dict[str, Any]]] = {}
    for recipe in recipes:
        fields = json.loads(recipe)
        by_strategy.setdefault(str(fields.pop("strategy", None)), {})[recipe] = fields
    labels: dict[str, str] = {}
    for group in by_strategy.values():
        labels |= zip(group, _labels(list(group.values())), strict=True)
    return labels


def _labels(recipes: list[dict[str, Any]]) -> list[str]:
    """Return the labels of one strategy's recipes, with as few digits as keep them apart."""
    names = independent_fields(recipes, FIRST_NAMED, always=("lr",))
    for digits in (3, 5, 17):
        texts = [
            ", ".join(f"{name} {format_value(name, recipe.get(name), digits)}" for name in names) for recipe in recipes
        ]
        if len(set(texts)) == len(texts):
            break
    return [text or "as configured" for text in texts]


def independent_fields(recipes: list[dict[str, Any]], first: Sequence[str], always: Sequence[str] = ()) -> list[str]:
    """Return the fields that recipes differ in, leaving out those that follow from the fields before them.

    Args:
        first: the fields that come first, in this order; the others follow alphabetically.
        always: fields that are returned even if all recipes agree in them.
    """
    names = {name for recipe in recipes for name in recipe}
    found: list[str] = []
    for name in [*(name for name in first if name in names), *sorted(names - set(first))]:
        if name in always or _count_distinct(recipes, [*found, name]) > _count_distinct(recipes, found):
            found.append(name)
    return found


def _count_distinct(recipes: list[dict[str, Any]], names: list[str]) -> int:
    return len({json.dumps([recipe.get(name) for name in names]) for recipe in recipes})


def format_value(name: str, value: Any, digits: int = 3) -> str:
    """Return a field's value as text: 0.0003, or a schedule as "0%, 33% from epoch 2"."""
    if name == "unfreeze" and isinstance(value, list):
        return format_schedule(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if name == "weights" and isinstance(value, str):
        return value[:12]  # the beginning of a hash identifies it
    return "none" if value is None else str(value)


def format_schedule(steps: list[list[float]]) -> str:
    """Return [[0, 0.0], [2, 0.33]] as "0%, 33% from epoch 3".

    A step names the number of finished epochs after which its share starts to train; epochs are counted from 1.
    """
    return ", ".join(f"{share:.0%}" + (f" from epoch {epoch + 1:g}" if epoch else "") for epoch, share in steps)


def differing_fields(recipes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the fields beyond OF_STRATEGY in which recipes of different strategies differ.

    Args:
        recipes: strategy -> recipe.

    Returns:
        field -> strategy -> formatted value; empty if the comparison is like for like.
    """
    fields = {strategy: json.loads(recipe) for strategy, recipe in recipes.items()}
    names = sorted({name for field in fields.values() for name in field} - set(OF_STRATEGY))
    values = {name: {key: format_value(name, field.get(name)) for key, field in fields.items()} for name in names}
    return {name: by_strategy for name, by_strategy in values.items() if len(set(by_strategy.values())) > 1}


def varied_fields(runs: pd.DataFrame) -> list[str]:
    """Return the fields of finished runs that the sweep varied; those that follow from others are left out."""
    recipes = [json.loads(recipe) for recipe in runs["recipe"]]
    first = ("strategy", "lr", "unfreeze", "backbone_lr")
    return independent_fields([{**recipe, "weights": None} for recipe in recipes], first)[:MAX_SETTINGS]


def setting_importance(runs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame | None:
    """Return the permutation importance for val accuracy of the fields that finished runs differ in, seed and fold too.

    Returns:
        see `permutation_importance`; points are fractions of val accuracy.
    """
    runs = runs.sort_values("run")
    recipes = [json.loads(recipe) for recipe in runs["recipe"]]
    settings = {name: _encode([recipe.get(name) for recipe in recipes]) for name in varied_fields(runs)}
    settings |= {name: runs[name].fillna(-1.0).tolist() for name in CHANCE if name in runs and runs[name].nunique() > 1}
    return permutation_importance(pd.DataFrame(settings), runs["best/val_accuracy"].to_numpy(float), rng)


def _encode(values: list[Any]) -> list[float]:
    """Return a field as numbers; other values, which have no order, are numbered."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values]
    texts = ["none" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
    numbers = {text: float(number) for number, text in enumerate(sort_strategies(texts))}
    return [numbers[text] for text in texts]

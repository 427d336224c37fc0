"""The labels of recipes and of their replicates, the fields in which recipes differ, and how much each one matters.

A recipe is everything that decides a run but seed, fold and split (`finetune.resolve.recipe_key`), as JSON text.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import sort_strategies
from analysis.sources.test_sets import REPLICATES
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


def distinguishing_labels(arms: Mapping[str, str]) -> dict[str, str]:
    """Return recipe -> the fields that distinguish it from the others of its arm, such as "lr 0.001".

    Fields that follow from others (a backbone rate that is a share of lr) are left out; lr never is.

    Args:
        arms: recipe -> arm.
    """
    by_arm: dict[str, dict[str, dict[str, Any]]] = {}
    for recipe, arm in arms.items():
        by_arm.setdefault(arm, {})[recipe] = json.loads(recipe)
    labels: dict[str, str] = {}
    for group in by_arm.values():
        labels |= zip(group, _labels(list(group.values())), strict=True)
    return labels


def _labels(recipes: list[dict[str, Any]]) -> list[str]:
    """Return the labels of one arm's recipes, with as few digits as keep them apart."""
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


def differing_fields(recipes: Mapping[str, str], of_arms: Collection[str] = ()) -> dict[str, dict[str, str]]:
    """Return the fields beyond OF_STRATEGY in which recipes of different arms differ.

    Args:
        recipes: arm -> recipe.
        of_arms: the fields that make arms.

    Returns:
        field -> arm -> formatted value; empty if the comparison is like for like.
    """
    fields = {arm: json.loads(recipe) for arm, recipe in recipes.items()}
    names = sorted({name for field in fields.values() for name in field} - {*OF_STRATEGY, *of_arms})
    values = {name: {key: format_value(name, field.get(name)) for key, field in fields.items()} for name in names}
    return {name: by_arm for name, by_arm in values.items() if len(set(by_arm.values())) > 1}


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


def replicate_label(runs: pd.DataFrame) -> str:
    """Return what the runs of one recipe differ in: "3 seeds", "5 folds", "3 seeds × 5 folds", or "1 seed".

    Where some are missing, as in an unfinished sweep: "7 runs of 2 seeds × 5 folds".
    """
    counts = {name: runs[column].nunique() for column, name in REPLICATES.items() if column in runs}
    several = [f"{count} {name}s" for name, count in counts.items() if count > 1]
    if not several and len(runs) == 1:
        return "1 fold" if counts.get("fold") else "1 seed"
    product = " × ".join(several)
    if prod(count for count in counts.values() if count > 1) == len(runs):
        return product
    return f"{len(runs)} runs of {product}" if several else f"{len(runs)} runs"


def replicate_kind(labels: Iterable[str]) -> str:
    """Return "seed" or "fold" where the runs of recipes with these labels differ in nothing else, else "run".

    Args:
        labels: see `replicate_label`.
    """
    kinds = {label.split(" ", 1)[1].removesuffix("s") for label in labels}
    return kinds.pop() if len(kinds) == 1 and kinds <= {"seed", "fold"} else "run"


def join_replicate_labels(labels: Iterable[str]) -> str:
    """Return the labels of several recipes as one: "3 seeds", "2 and 3 seeds", "3 seeds × 5 folds"."""
    distinct = list(dict.fromkeys(labels))
    kind = replicate_kind(distinct)
    if kind == "run":
        return " and ".join(distinct)
    counts = sorted({int(label.split(" ")[0]) for label in distinct})
    return f"{' and '.join(map(str, counts))} {kind}{'' if counts == [1] else 's'}"

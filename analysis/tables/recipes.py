"""What makes two runs the same recipe, how a recipe is named, and which one val chooses.

A recipe is everything that decides a run but seed, fold and split: runs that differ in these repeat it. It is chosen by
the mean val accuracy over its runs; test is never looked at here.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

FIRST_NAMED = ("lr", "unfreeze", "backbone_lr", "block_decay")  # what a reader looks for first in a recipe's name
# Fields that belong to a strategy: recipes of different strategies may well differ in them.
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
    """Return for each recipe the fields that tell it from the others of its strategy, such as "lr 0.001".

    A field that follows from those already named (a backbone rate that is a share of lr) is left out; lr never is.
    """
    by_strategy: dict[str, list[str]] = {}
    for recipe in recipes:
        by_strategy.setdefault(str(json.loads(recipe).get("strategy")), []).append(recipe)
    named: dict[str, str] = {}
    for keys in by_strategy.values():
        fields = [json.loads(key) for key in keys]
        every = {name for field in fields for name in field} - {"strategy"}
        order = [name for name in FIRST_NAMED if name in every] + sorted(every - set(FIRST_NAMED))
        told: list[str] = []
        for name in order:
            if name == "lr" or _count_distinct(fields, [*told, name]) > _count_distinct(fields, told):
                told.append(name)
        for digits in (3, 5, 17):  # as few as tell the recipes apart
            texts = [
                ", ".join(f"{name} {format_value(name, field.get(name), digits)}" for name in told) for field in fields
            ]
            if len(set(texts)) == len(texts):
                break
        named |= {key: text or "as configured" for key, text in zip(keys, texts, strict=True)}
    return named


def _count_distinct(fields: list[dict[str, Any]], names: list[str]) -> int:
    """Return into how many kinds the values of these fields divide the recipes."""
    return len({json.dumps([field.get(name) for name in names]) for field in fields})


def format_value(name: str, value: Any, digits: int = 3) -> str:
    """Return a field's value for people: 0.0003, or a schedule as "0%, 33% from epoch 2"."""
    if name == "unfreeze" and isinstance(value, list):
        return format_schedule(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if name == "weights" and isinstance(value, str):
        return value[:12]  # a hash is told apart by its beginning
    return "none" if value is None else str(value)


def format_schedule(steps: list[list[float]]) -> str:
    """Return [[0, 0.0], [2, 0.33]] as "0%, 33% from epoch 3".

    A step says how many epochs are finished when its share starts to train; people count the epoch that comes next.
    """
    return ", ".join(f"{share:.0%}" + (f" from epoch {epoch + 1:g}" if epoch else "") for epoch, share in steps)


def differing_fields(recipes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the fields in which recipes of different strategies differ beyond what a strategy is.

    Args:
        recipes: strategy -> recipe.

    Returns:
        field -> strategy -> readable value; empty when the comparison is fair.
    """
    fields = {strategy: json.loads(recipe) for strategy, recipe in recipes.items()}
    every = sorted({name for field in fields.values() for name in field} - set(OF_STRATEGY))
    values = {name: {key: format_value(name, field.get(name)) for key, field in fields.items()} for name in every}
    return {name: by_strategy for name, by_strategy in values.items() if len(set(by_strategy.values())) > 1}

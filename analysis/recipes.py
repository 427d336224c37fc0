"""What makes two runs the same recipe, how a recipe is named, and which one val chooses.

A recipe is everything that decides a run but seed, fold and split: runs that differ in these repeat it. It is chosen by
the mean val accuracy over its runs; test is never looked at here.
"""

import json
import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

import pandas as pd

STRATEGIES = ("scratch", "head", "partial", "gradual", "lpft", "full")  # the order of every table, figure and legend

REPEATED = ("seed", "fold", "split_seed")
# Fields that came later, as earlier runs had them: at these values they do not tell recipes apart.
LATER = {"erasing": 0.0, "mixup": 0.0, "cutmix": 0.0, "balance": "none", "folds": None, "train_share": 1.0}
# Where and how a run was made; data is checked by its fingerprint.
PLACES = ("data", "device", "loader_workers", "cache", "keep", "upload_best")
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


def recipe_key(config: Mapping[str, Any], weights_hash: str | None) -> str:
    """Return the recipe of a resolved config as JSON text, equal for runs that differ in seed, fold or split only.

    Weights are the same when their hash is, wherever the file lies.
    """
    left_out = {*REPEATED, *PLACES, "provenance", *(name for name, value in LATER.items() if config.get(name) == value)}
    fields = {name: value for name, value in config.items() if name not in left_out}
    if weights_hash:
        fields["weights"] = weights_hash
    return json.dumps(fields, sort_keys=True, default=str)


def in_order(strategies: Iterable[str]) -> list[str]:
    """Return the strategies without repeats, from the one that trains from nothing to the one that trains all."""
    found = set(strategies)
    return [name for name in STRATEGIES if name in found] + sorted(found - set(STRATEGIES))


def choose(finished: pd.DataFrame, race: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """Return one row a recipe, with the one that val chose for each strategy marked, and what has to be said of it.

    Only recipes with the strategy's largest number of runs compete: a mean over fewer seeds is higher by luck more
    often. A tie in val accuracy goes to the lower val loss, then to the recipe that comes first in the alphabet.

    Args:
        finished: one row a run, no two of the same recipe, seed and fold.
        race: whether recipes that val did not prefer at the first seed were left with that.

    Returns:
        columns recipe, strategy, label, lr, n (runs), val_accuracy, val_loss, competes, chosen; and the notes.
    """
    names = labels(finished["recipe"].unique())
    groups = finished.groupby("recipe", sort=True)
    table = pd.DataFrame(
        {
            "strategy": groups["strategy"].first(),
            "lr": groups["lr"].first(),
            "n": groups.size(),
            "val_accuracy": groups["best/val_accuracy"].agg(_mean),
            "val_loss": groups["best/val_loss"].agg(_mean),
        }
    ).reset_index()
    table.insert(2, "label", table["recipe"].map(names))
    most = table.groupby("strategy")["n"].transform("max")
    table["competes"] = table["n"] == most
    order = table[table["competes"]].sort_values(
        ["val_accuracy", "val_loss", "recipe"], ascending=[False, True, True], na_position="last"
    )
    table["chosen"] = table["recipe"].isin(order.groupby("strategy")["recipe"].first())
    has_folds = "fold" in finished and bool(finished["fold"].notna().any())
    return table, _of_the_race(table) if race else _short_of_runs(table, "runs" if has_folds else "seeds")


def _mean(values: "pd.Series[float]") -> float:
    """Return the mean, the same for the same values in any order: in the last bits a tie would be none."""
    told = values.dropna()
    return round(fmean(sorted(told)), 12) if len(told) else math.nan


def _short_of_runs(table: pd.DataFrame, units: str) -> list[str]:
    """Say of each strategy which recipes did not compete."""
    notes = []
    for strategy in in_order(table["strategy"]):
        group = table[table["strategy"] == strategy]
        short = group[~group["competes"]]
        if len(short):
            listed = "; ".join(f"{label} ({runs})" for label, runs in zip(short["label"], short["n"], strict=True))
            notes.append(
                f"{strategy}: recipes with fewer {units} than the {group['n'].max()} of the others did not compete: "
                f"{listed}. Finish their runs to let them."
            )
    return notes


def _of_the_race(table: pd.DataFrame) -> list[str]:
    """Say once what a race has left out, and how to have it."""
    lost = table[~table["competes"]]
    if lost.empty:
        return []
    ordered = [row for name in in_order(lost["strategy"]) for _, row in lost[lost["strategy"] == name].iterrows()]
    listed = "; ".join(f"{row['strategy']} {row['label']}" for row in ordered)
    return [
        f"A race: recipes that val did not prefer at the first seed got no more, and did not compete: {listed}. "
        "The command that ran the sweep, with --no-race, runs the rest."
    ]


def labels(recipes: Iterable[str]) -> dict[str, str]:
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
            if name == "lr" or _kinds(fields, [*told, name]) > _kinds(fields, told):
                told.append(name)
        for digits in (3, 5, 17):  # as few as tell the recipes apart
            texts = [
                ", ".join(f"{name} {readable(name, field.get(name), digits)}" for name in told) for field in fields
            ]
            if len(set(texts)) == len(texts):
                break
        named |= {key: text or "as configured" for key, text in zip(keys, texts, strict=True)}
    return named


def _kinds(fields: list[dict[str, Any]], names: list[str]) -> int:
    """Return into how many kinds the values of these fields divide the recipes."""
    return len({json.dumps([field.get(name) for name in names]) for field in fields})


def readable(name: str, value: Any, digits: int = 3) -> str:
    """Return a field's value for people: 0.0003, or a schedule as "0%, 33% from epoch 2"."""
    if name == "unfreeze" and isinstance(value, list):
        return schedule(value)
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if name == "weights" and isinstance(value, str):
        return value[:12]  # a hash is told apart by its beginning
    return "none" if value is None else str(value)


def schedule(steps: list[list[float]]) -> str:
    """Return [[0, 0.0], [2, 0.33]] as "0%, 33% from epoch 3".

    A step says how many epochs are finished when its share starts to train; people count the epoch that comes next.
    """
    return ", ".join(f"{share:.0%}" + (f" from epoch {epoch + 1:g}" if epoch else "") for epoch, share in steps)


def unlike(recipes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the fields in which recipes of different strategies differ beyond what a strategy is.

    Args:
        recipes: strategy -> recipe.

    Returns:
        field -> strategy -> readable value; empty when the comparison is fair.
    """
    fields = {strategy: json.loads(recipe) for strategy, recipe in recipes.items()}
    every = sorted({name for field in fields.values() for name in field} - set(OF_STRATEGY))
    values = {name: {key: readable(name, field.get(name)) for key, field in fields.items()} for name in every}
    return {name: by_strategy for name, by_strategy in values.items() if len(set(by_strategy.values())) > 1}

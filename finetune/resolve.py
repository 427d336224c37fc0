"""What makes two configs the same run: defaults that depend on other fields, what a run ignores, and its name."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from finetune.config import BACKBONE_LR_SHARE, DEFAULT_VIEWS, Config, Schedule, Strategy, to_dict

# Fields that were added later: at their defaults they do not enter the hash, so that earlier runs keep their names.
FIELDS_ADDED_LATER = ("erasing", "mixup", "cutmix", "balance", "folds", "fold", "train_share", "group_by")

# Fields that say where things lie or how they are run, but do not change the result (beyond rounding).
FIELDS_WITHOUT_EFFECT = ("data", "weights", "device", "loader_workers", "cache", "keep", "upload_best")

# Fields that decide which images a run trains on, chooses by and is tested on, before `train_share`.
SPLIT_FIELDS = ("data", "group_by", "split_seed", "folds", "fold")

# Fields that make a replicate of a recipe: the same training with other random numbers, or on other parts of the data.
# Fields that val tunes within an arm; every other field that a sweep varies is something that it compares.
TUNED_FIELDS = ("lr", "backbone_lr", "weight_decay", "block_decay")
REPLICATE_FIELDS = ("seed", "fold", "split_seed")

# Names of data sets and weights, which no folder or file of that name takes over.
_RESERVED = re.compile(r"inaturalist12k|demo|(?i:none)|DEFAULT|IMAGENET1K_\w+")


def default_schedule(strategy: Strategy, epochs: int) -> Schedule:
    """Return a strategy's own unfreeze schedule for a run of `epochs`.

    `gradual` goes 0, 1/3, 2/3, 1 in equal steps over the first half, so that at least half of the run trains all.
    `lpft` trains the head alone for a quarter, then all (linear probing, then fine-tuning: Kumar et al., arXiv
    2202.10054).
    """
    if strategy == "lpft":
        return [(0, 0.0), (max(1, round(epochs / 4)), 1.0)] if epochs > 1 else [(0, 1.0)]
    if strategy == "gradual":
        steps = dict(zip((round(epochs * sixth / 6) for sixth in range(4)), (0.0, 1 / 3, 2 / 3, 1.0), strict=True))
        return list(steps.items())  # in a very short run steps meet; the last one counts
    return [(0, {"head": 0.0, "partial": 1 / 3, "full": 1.0, "scratch": 1.0}[strategy])]


def resolve(config: Config) -> Config:
    """Fill the defaults that depend on other fields, and clear what this run ignores.

    Two configs that would train the same thing resolve to the same config, up to `PLACES`: `scratch`, `head` and
    `full` have no use for `unfreeze`; a `partial` whose share is 1 is `full`; `head` has no backbone rate; a `gradual`
    that goes from the head to everything in one step is `lpft`.
    """
    strategy, weights = config.strategy, config.weights
    backbone, _, tag = config.backbone.partition(".")
    weights = tag or weights
    if strategy == "scratch":
        weights = "none"
    schedule = config.unfreeze if strategy in ("partial", "gradual", "lpft") and config.unfreeze else None
    schedule = _without_repeats(schedule or default_schedule(strategy, config.epochs))
    shares = [share for _, share in schedule]
    if shares == [0.0, 1.0]:
        strategy = "lpft"
    elif len(shares) > 1:
        strategy = "gradual"
    elif shares == [0.0]:
        strategy = "head"
    elif shares == [1.0]:
        strategy = "scratch" if weights.lower() == "none" else "full"
    else:
        strategy = "partial"
    backbone_lr = config.backbone_lr or config.lr * BACKBONE_LR_SHARE
    trains_backbone = shares[-1] > 0
    return config.model_copy(
        update={
            "backbone": backbone,
            "strategy": strategy,
            "weights": "none" if weights.lower() == "none" else weights,
            "unfreeze": schedule,
            # From scratch there is nothing to protect: one rate for all, the same in every block.
            "backbone_lr": None if not trains_backbone else config.lr if strategy == "scratch" else backbone_lr,
            "block_decay": config.block_decay if trains_backbone and strategy != "scratch" else 1.0,
            "rewarm_epochs": config.rewarm_epochs if len(schedule) > 1 else 0.0,
            "views": _views(config, shares[0] < 1),
            # Without smaller training images, it makes no difference.
            "start_px": config.start_px if shares[-1] == 1 and config.start_px != config.image_px else None,
        }
    )


def _views(config: Config, frozen: bool) -> int:
    """Return the number of views; 0 where none can be kept, and 1 where all are the same."""
    if not frozen or config.mixup or config.cutmix:  # mixed images differ each time
        return 0
    if config.augment == "none" and not config.erasing:
        return 1
    return DEFAULT_VIEWS if config.views is None else config.views


def _without_repeats(schedule: Schedule) -> Schedule:
    """Drop the steps that change nothing."""
    return [step for index, step in enumerate(schedule) if index == 0 or step[1] != schedule[index - 1][1]]


def run_id(config: Config, data_fingerprint: str, weights_hash: str) -> str:
    """Return the name of a run: its strategy and a short hash of all that decides its result.

    A path does not enter the hash, what it points to does; so a run is the same on every machine.
    """
    unset = {name for name in FIELDS_ADDED_LATER if getattr(config, name) == Config.model_fields[name].default}
    left_out = {*FIELDS_WITHOUT_EFFECT, *unset}
    fields = {name: value for name, value in to_dict(resolve(config)).items() if name not in left_out}
    text = json.dumps({**fields, "data": data_fingerprint, "weights": weights_hash}, sort_keys=True)
    return f"{fields['strategy']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def with_absolute_paths(config: Config) -> Config:
    """Make the paths independent of the working directory, which a run's process need not share."""
    places = {name: getattr(config, name) for name in ("data", "weights")}
    paths = {name: Path(value) for name, value in places.items() if not _RESERVED.fullmatch(value)}
    return config.model_copy(update={name: str(path.resolve()) for name, path in paths.items() if path.exists()})


def recipe_key(
    config: Mapping[str, Any], weights_hash: str | None, replicates: Collection[str] = REPLICATE_FIELDS
) -> str:
    """Return the recipe of a resolved config as JSON text, equal for runs that are replicates of each other.

    Fields that earlier versions did not have count as their defaults; weights are equal when their hashes are, wherever
    the file lies. The data set is not part of a recipe.

    Args:
        config: the fields, also of a run directory, where `provenance` is one.
        weights_hash: None where only their name is known.
        replicates: the fields in which runs of one recipe may differ.
    """
    unset = {name for name in FIELDS_ADDED_LATER if config.get(name) == Config.model_fields[name].default}
    left_out = {*replicates, *unset, *FIELDS_WITHOUT_EFFECT, "provenance"} - {"weights"}
    fields = {name: value for name, value in config.items() if name not in left_out}
    if weights_hash:
        fields["weights"] = weights_hash
    return json.dumps(fields, sort_keys=True, default=str)


def arm(config: Config) -> str:
    """Return the data set and all of a resolved config that makes its arm: the recipe without the tuned rates."""
    return f"{config.data} {recipe_key(to_dict(config), None, {*REPLICATE_FIELDS, *TUNED_FIELDS})}"


def recipe(config: Config) -> str:
    """Return the data set and recipe of a resolved config; a sweep may compare data sets, too."""
    return f"{config.data} {recipe_key(to_dict(config), None)}"

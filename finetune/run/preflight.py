"""All that can be checked about a config's data and weights before anything is downloaded or started."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from finetune.cache import store
from finetune.config import Config
from finetune.data import catalog
from finetune.data.layout import read_layout
from finetune.data.sampling import subsample_train
from finetune.data.scan import load_or_scan
from finetune.data.splits import Splits, find_splits
from finetune.data.transforms import preprocessing
from finetune.errors import ConfigError, NotDownloadedError
from finetune.models import weights
from finetune.models.classifier import build_classifier, build_meta_network, check_image_px
from finetune.models.unfreezing import UnfreezeSchedule, freeze_blocks
from finetune.resolve import resolve


def fingerprint_inputs(config: Config, checked: bool = False) -> tuple[str, str]:
    """Return (data fingerprint, weights hash): what `run_id` needs beside the config.

    Args:
        checked: whether another process has found network, picture size and weights to fit, which takes a second.

    Raises:
        NotDownloadedError: the data can be fetched, and was not yet; nothing else is wrong.
        DataError: the data folder is missing, or can't be split into train, val and test.
        WeightsError: the weights are missing or of another backbone.
        ConfigError: the backbone can't take pictures of this size.
        UserError: the cache's budget is no number.
    """
    if config.cache != "off":
        store.budget_bytes()
    lacking, pictures = None, config.batch_size
    try:
        pictures = len(load_splits(config).train)
    except NotDownloadedError as error:  # can be fetched, which is not worth it where something else is wrong
        lacking = error
    if not checked:
        side = preprocessing(config.backbone, config.weights, config.image_px).crop_px
        check_image_px(config.backbone, side, config.start_px)
        if min(config.batch_size, pictures) == 1:
            _check_lone_pictures(config, side)
    weights_hash = weights.weights_hash(config.backbone, config.weights, checked)
    if lacking is not None:
        raise lacking
    return fingerprint(catalog.locate(config.data)), weights_hash


def _check_lone_pictures(config: Config, side: int) -> None:
    """Raise ConfigError if a batch of one picture leaves batch-norm that trains a single number a channel."""
    for px in {side, config.start_px or side}:
        model = build_classifier(build_meta_network(config.backbone, side), 2, 0.0)
        freeze_blocks(model, UnfreezeSchedule.of(resolve(config), len(model.blocks)).final_cut)
        try:
            model.to("meta")(torch.zeros(1, 3, px, px, device="meta"))
        except ValueError as error:
            fault = f"batch-norm of {config.backbone} can't train on 1 picture of {px} pixels: give 2 or more"
            raise ConfigError([f"batch_size: {fault}"], "the config") from error


def check_inputs(configs: Iterable[Config]) -> None:
    """Have all weights on this machine, once, before runs start side by side.

    Raises:
        WeightsError: they can't be downloaded.
    """
    for backbone, weight in sorted({(config.backbone, config.weights) for config in configs}):
        weights.download_weights(backbone, weight)


def load_splits(config: Config) -> Splits:
    """Return the splits, found once a process.

    Raises:
        NotDownloadedError, DataError: see `identify`.
    """
    return _part(config.train_share, config.data, config.split_seed, config.folds, config.fold)


@cache
def _part(share: float, data: str, split_seed: int, folds: int | None, fold: int | None) -> Splits:
    return subsample_train(_split(data, split_seed, folds, fold), share, split_seed)


@cache
def _split(data: str, split_seed: int, folds: int | None, fold: int | None) -> Splits:
    place = catalog.locate(data)
    layout = read_layout(place)
    found = find_splits(layout, split_seed, folds, fold, load_or_scan(layout.root, layout.paths(), fingerprint(place)))
    if data == catalog.INATURALIST:
        return replace(found, how=(*found.how, *catalog.count_mismatches(place)))
    return found


@cache
def fingerprint(place: Path) -> str:
    """Return the data's fingerprint, taken once a process; `place` is where the data lies."""
    return catalog.fingerprint(place)

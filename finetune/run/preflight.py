"""Checks a config's data and weights before anything is downloaded or started; finds its splits, once per process."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finetune.cache import store
from finetune.config import Config
from finetune.data import catalog
from finetune.data.layout import read_layout
from finetune.data.sampling import subsample_train
from finetune.data.scan import load_or_scan
from finetune.data.splits import Splits, find_splits
from finetune.errors import ConfigError, NotDownloadedError
from finetune.models import weights
from finetune.models.classifier import build_classifier, build_meta_network, count_blocks
from finetune.models.device import check_device
from finetune.models.unfreezing import UnfreezeSchedule, freeze_blocks
from finetune.pretrained import preprocessing_of
from finetune.resolve import SPLIT_FIELDS, resolve

MIN_BLOCKS = 3  # of a backbone that is trained in parts


class InputFingerprints(NamedTuple):
    """What `run_id` needs beside the config."""

    data: str
    weights: str


def fingerprint_inputs(config: Config, skip_checks: bool = False) -> InputFingerprints:
    """Return the fingerprints of data and weights, after checking that they fit the config.

    Args:
        config: resolved.
        skip_checks: whether another process has checked network, image size and weights, which takes a second.

    Raises:
        NotDownloadedError: the data can be downloaded, but has not been; nothing else is wrong.
        DataError: the data folder is missing, or can't be split into train, val and test.
        WeightsError: the weights are missing or of another backbone.
        ConfigError: the backbone can't take images of this size, or this machine has no such device.
        UserError: the cache's budget is not a number.
    """
    check_device(config.device)
    if config.cache != "off":
        store.budget_bytes()
    not_downloaded, train_size = None, config.batch_size
    try:
        train_size = len(load_splits(config).train)
    except NotDownloadedError as error:  # raised at the end: nobody should download before fixing other faults
        not_downloaded = error
    if not skip_checks:
        side = preprocessing_of(config.backbone, config.weights, config.image_px).crop_px
        blocks = count_blocks(config.backbone, side, config.start_px)
        if config.strategy in ("partial", "gradual") and blocks < MIN_BLOCKS:
            raise ConfigError([_few_blocks_message(config, blocks)], "the config")
        if min(config.batch_size, train_size) == 1:
            _check_single_images(config, side)
    weights_hash = weights.weights_hash(config.backbone, config.weights, skip_checks, config.image_px)
    if not_downloaded is not None:
        raise not_downloaded
    return InputFingerprints(data_fingerprint(catalog.locate(config.data)), weights_hash)


def _few_blocks_message(config: Config, blocks: int) -> str:
    return (
        f"strategy: {config.strategy} trains a part of the blocks, but {config.backbone} can only be cut into {blocks} "
        f"block{'s' * (blocks != 1)}: use head, lpft, full or scratch, or another backbone"
    )


def _check_single_images(config: Config, side: int) -> None:
    """Raise ConfigError if a trainable batch-norm would see a single value per channel in a batch of one image."""
    for px in {side, config.start_px or side}:
        model = build_classifier(build_meta_network(config.backbone, side), 2, 0.0)
        freeze_blocks(model, UnfreezeSchedule.of(resolve(config), len(model.blocks)).final_cut)
        try:
            model.to("meta")(torch.zeros(1, 3, px, px, device="meta"))
        except ValueError as error:
            fault = f"batch-norm of {config.backbone} can't train on 1 image of {px} pixels: give 2 or more"
            raise ConfigError([f"batch_size: {fault}"], "the config") from error


def load_splits(config: Config) -> Splits:
    """Return the splits of a config; each is found once per process.

    Raises:
        NotDownloadedError, DataError: see `fingerprint_inputs`.
    """
    split = tuple(getattr(config, name) for name in SPLIT_FIELDS)
    return _load_train_share(config.train_share, config.split_seed, split)


@cache
def _load_train_share(share: float, split_seed: int, split: tuple[Any, ...]) -> Splits:
    return subsample_train(_load_splits(*split), share, split_seed)


@cache
def _load_splits(data: str, group_by: str | None, split_seed: int, folds: int | None, fold: int | None) -> Splits:
    path = catalog.locate(data)
    layout = read_layout(path, group_by)
    scan = load_or_scan(layout.root, layout.paths(), data_fingerprint(path))
    splits = find_splits(layout, split_seed, folds, fold, scan)
    if data == catalog.INATURALIST:
        return replace(splits, notes=(*splits.notes, *catalog.count_mismatches(path)))
    return splits


@cache
def data_fingerprint(path: Path) -> str:
    """Return the fingerprint of the data at `path`, computed once per process."""
    return catalog.fingerprint(path)

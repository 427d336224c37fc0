"""Builds the components of a run from its config."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from finetune.cache.activation_cache import ActivationCache
from finetune.cache.activation_entries import ActivationEntries
from finetune.cache.pixel_cache import DecodedImages, PixelCache
from finetune.cache.reuse import ActivationKey, augmentation_of, deepest_cut, shared_activation_uses
from finetune.cache.store import FillCallbacks
from finetune.config import Config, to_dict
from finetune.data.dataset import EpochBatchSampler, worker_count
from finetune.data.sampling import class_weights
from finetune.data.splits import Splits
from finetune.data.transforms import side_at
from finetune.models import weights
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.device import autocast_of, device_of
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.pretrained import Preprocessing, code_of, preprocessing_of
from finetune.run.checkpoint import checkpoint_metadata
from finetune.run.preflight import load_splits
from finetune.seeds import stream_seed
from finetune.training.batch_source import BatchSettings, BatchSource
from finetune.training.loop import TrainSettings
from finetune.training.lr_schedule import lr_multiplier
from finetune.training.optimizer import adamw, param_groups


@dataclass(frozen=True)
class RunComponents:
    """What a run is made of."""

    config: Config
    splits: Splits
    preprocessing: Preprocessing
    model: Classifier
    prefix: FrozenPrefix
    uses: Counter[ActivationKey]  # how often this run and its peers use which activations
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    metadata: dict[str, Any]  # what its checkpoints contain beside weights and state; see `checkpoint_metadata`

    def train_px(self, epoch: int) -> int:
        """Return the side of the training images, in pixels, after `epoch` finished epochs."""
        full_px = self.preprocessing.crop_px
        if self.settings.schedule.cut(epoch):
            return full_px
        return side_at(epoch, self.config.epochs, self.config.start_px, full_px)


def build_components(config: Config, name: str, peers: Sequence[Config] | None) -> RunComponents:
    """Build everything from the config. The same config gives the same components, initial weights included.

    Args:
        config: resolved.
        name: id of the run.
        peers: see `run.run`.
    """
    splits = load_splits(config)
    shape = preprocessing_of(config.backbone, config.weights, config.image_px)
    device = device_of(config.device)
    model = _build_model(config, len(splits.classes), shape.crop_px).to(device).to(memory_format=torch.channels_last)
    blocks = len(model.blocks)
    settings = _train_settings(config, splits, UnfreezeSchedule.of(config, blocks), device)
    uses = shared_activation_uses(config, peers, blocks)
    stored_config = to_dict(config.model_copy(update={"image_px": shape.crop_px}))
    groups = param_groups(model, config.lr, config.backbone_lr, config.block_decay, config.weight_decay)
    return RunComponents(
        config=config,
        splits=splits,
        preprocessing=shape,
        model=model,
        prefix=FrozenPrefix(model, deepest_cut(config, uses, blocks), settings.schedule.final_cut),
        uses=uses,
        optimizer=adamw(groups),
        settings=settings,
        metadata=checkpoint_metadata(name, stored_config, splits.classes, shape),
    )


def _build_model(config: Config, classes: int, px: int) -> Classifier:
    torch.manual_seed(stream_seed(config.seed, "init"))
    network = build_network(config.backbone, px)
    if config.weights != "none":
        weights.load_weights(network, config.backbone, config.weights, px)
    return build_classifier(network, classes, config.dropout)


def _train_settings(config: Config, splits: Splits, schedule: UnfreezeSchedule, device: torch.device) -> TrainSettings:
    steps = len(EpochBatchSampler(len(splits.train), config.batch_size, config.seed))
    loss_weights = None
    if config.balance == "weights":
        by_class = class_weights((sample.label for sample in splits.train), len(splits.classes))
        loss_weights = torch.tensor(by_class, device=device)
    return TrainSettings(
        schedule=schedule,
        epochs=config.epochs,
        lr_multiplier=lr_multiplier(schedule, steps, config.epochs, config.warmup_epochs, config.rewarm_epochs),
        label_smoothing=config.label_smoothing,
        patience=config.patience,
        device=device,
        autocast=autocast_of(config.precision, device),
        seed=config.seed,
        class_weights=loss_weights,
    )


def build_batch_source(
    components: RunComponents,
    data_fingerprint: str,
    is_last_run: bool,
    callbacks: FillCallbacks,
) -> BatchSource:
    """Return the batches of train, val and test.

    Args:
        is_last_run: whether no other run that could use the same images is still to do.
    """
    config, splits, device = components.config, components.splits, components.settings.device
    samples = {name: getattr(splits, name) for name in ("train", "val", "test")}
    entries = ActivationEntries(
        prefix=components.prefix,
        blocks=len(components.model.blocks),
        preprocessing=components.preprocessing,
        device=device,
        splits=samples,
        origin={"data": data_fingerprint, "augment": augmentation_of(config), "backbone": code_of(config.backbone)},
    )
    activations = ActivationCache(entries, components.uses, config.cache, callbacks)

    def open_pixels(split: str) -> DecodedImages | None:
        reads_each_image_once = config.epochs == 1 and is_last_run
        if config.cache == "off" or (config.cache == "auto" and reads_each_image_once):
            return None
        pixels = PixelCache(splits.root, samples[split], components.preprocessing, data_fingerprint)
        return pixels.build(torch.get_num_threads(), callbacks)

    workers = worker_count(config.loader_workers, device.type)
    settings = BatchSettings(**{field.name: getattr(config, field.name) for field in fields(BatchSettings)})
    return BatchSource(settings, splits, components.preprocessing, device, activations, open_pixels, workers)

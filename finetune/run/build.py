"""What a run is made of, built from its config."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetune.cache.activation_cache import ActivationCache
from finetune.cache.pixel_cache import DecodedImages, build_pixels
from finetune.cache.reuse import ActivationKey, augmentation_of, deepest_cut, shared_activation_uses
from finetune.config import Config, to_dict
from finetune.data.dataset import EpochBatchSampler, worker_count
from finetune.data.sampling import class_weights
from finetune.data.splits import Splits
from finetune.data.transforms import Preprocessing, preprocessing
from finetune.models import weights
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.run.checkpoint import checkpoint_metadata
from finetune.run.preflight import load_splits
from finetune.seeds import stream_seed
from finetune.training import lr_schedule, optimizer
from finetune.training.batch_source import BatchSource
from finetune.training.loop import TrainSettings
from finetune.training.optimizer import adamw


@dataclass(frozen=True)
class RunComponents:
    """What a run is made of, once everything is built."""

    config: Config
    splits: Splits
    to: Preprocessing
    model: Classifier
    prefix: FrozenPrefix
    uses: Counter[ActivationKey]  # how often this run and its peers use which activations
    optimizer: torch.optim.Optimizer
    loop: TrainSettings
    about: dict[str, Any]  # what its checkpoints say of themselves


def build_components(config: Config, name: str, peers: Sequence[Config] | None) -> RunComponents:
    """Build everything from the config; the same config gives the same parts, initial weights included.

    Args:
        config: resolved.
        name: of the run.
        peers: see `run.run`.
    """
    splits = load_splits(config)
    to = preprocessing(config.backbone, config.weights, config.image_px)
    torch.manual_seed(stream_seed(config.seed, "init"))
    network = build_network(config.backbone, to.crop_px)
    if config.weights != "none":
        weights.load_weights(network, config.backbone, config.weights, to.crop_px)
    model = build_classifier(network, len(splits.classes), config.dropout)
    device = device_of(config.device)
    model = model.to(device).to(memory_format=torch.channels_last)
    groups = optimizer.param_groups(model, config.lr, config.backbone_lr, config.block_decay, config.weight_decay)
    schedule = UnfreezeSchedule.of(config, len(model.blocks))
    steps = len(EpochBatchSampler(len(splits.train), config.batch_size, config.seed))
    loop = TrainSettings(
        schedule=schedule,
        epochs=config.epochs,
        multiplier=lr_schedule.lr_multiplier(
            schedule, steps, config.epochs, config.warmup_epochs, config.rewarm_epochs
        ),
        label_smoothing=config.label_smoothing,
        patience=config.patience,
        device=device,
        autocast=autocast_of(config.precision, device),
        seed=config.seed,
        class_weights=_class_weights(config, splits, device),
    )
    uses = shared_activation_uses(config, peers, len(model.blocks))
    prefix = FrozenPrefix(model, deepest_cut(config, uses, len(model.blocks)), schedule.final_cut)
    fields = to_dict(config.model_copy(update={"image_px": to.crop_px}))
    about = checkpoint_metadata(name, fields, splits.classes, to)
    return RunComponents(config, splits, to, model, prefix, uses, adamw(groups), loop, about)


def make_batch_source(
    parts: RunComponents,
    fingerprint: str,
    alone: bool,
    interrupted: Callable[[], bool],
    on_fill: Callable[[float | None], None],
) -> BatchSource:
    """Return what feeds training, val and test.

    Args:
        fingerprint: of the data.
        alone: whether no other run is to do that could use the same pictures.
        interrupted: see `run.run`.
        on_fill: called while a cache is filled, with the share that is; with None while another process fills it.
    """
    config, splits, to, device = parts.config, parts.splits, parts.to, parts.loop.device
    by_name = {name: getattr(splits, name) for name in ("train", "val", "test")}
    activations = ActivationCache(
        prefix=parts.prefix,
        blocks=len(parts.model.blocks),
        to=to,
        device=device,
        splits=by_name,
        origin={"data": fingerprint, "augment": augmentation_of(config), "backbone": config.backbone},
        uses=parts.uses,
        mode=config.cache,
        interrupted=interrupted,
        on_progress=on_fill,
    )

    def open_pixels(split: str) -> DecodedImages | None:
        if config.cache == "off" or (config.cache == "auto" and config.epochs == 1 and alone):
            return None  # or each picture is looked at once
        return build_pixels(
            splits.root,
            by_name[split],
            to,
            fingerprint,
            threads=torch.get_num_threads(),
            on_progress=lambda done, total: on_fill(done / total),
            on_wait=lambda: on_fill(None),
            interrupted=interrupted,
        )

    workers = worker_count(config.loader_workers, device.type)
    return BatchSource(config, splits, to, device, activations, open_pixels, workers)


def _class_weights(config: Config, splits: Splits, device: torch.device) -> torch.Tensor | None:
    """Return the training loss's weights, (classes,) float32 on the device, where the run asks for them."""
    if config.balance != "weights":
        return None
    return torch.tensor(class_weights((picture.label for picture in splits.train), len(splits.classes)), device=device)


def device_of(wanted: str) -> torch.device:
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return bfloat16 if asked for, or if `auto` and on a GPU that computes in it."""
    helps = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and helps) else None

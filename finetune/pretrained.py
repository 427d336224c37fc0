"""Published weights of backbones: names, addresses, preprocessing and licences, as torchvision and timm list them.

A backbone is one of torchvision's networks (`resnet18`) or, with the prefix `timm/`, an architecture of timm
(`timm/vit_small_patch14_dinov2`). timm is imported when such a backbone is asked for, and need not be installed
otherwise.
"""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import floor
from pathlib import Path
from types import ModuleType
from typing import Any

from yaml import YAMLError

from finetune.config import TIMM_PREFIX
from finetune.errors import ConfigError, WeightsError, nearest
from finetune.system.documents import load_yaml

HUB = "https://huggingface.co"
TORCHVISION_LICENSE = "BSD-3-Clause"  # of the package; a few weights have terms of their own
MAX_LISTED = 12  # weights that a message names


@dataclass(frozen=True)
class Preprocessing:
    """The network's input.

    Attributes:
        resize_px: short side of the image before the central crop.
        crop_px: side of the square that the network sees.
        mean: of each channel, for values in [0, 1].
        std: likewise.
        interpolation: `bilinear` or `bicubic`.
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that somebody publishes for a backbone.

    Attributes:
        identifier: stands for their content in a run's name.
        url: of the file; None for a file of the Hugging Face hub.
        file_name: in the cache, and on a mirror.
        hub: repository and file on the Hugging Face hub, or None.
        size: bytes, 0 if not published.
        license: as published, or None.
    """

    identifier: str
    url: str | None
    file_name: str
    hub: tuple[str, str] | None
    size: float
    license: str | None
    preprocessing: Preprocessing


def published_weights(backbone: str) -> Mapping[str, PublishedWeights]:
    """Return the name -> published weights of a backbone; `DEFAULT` is one of them if there are any.

    Raises:
        WeightsError: timm is missing.
        ConfigError: timm has no such architecture.
    """
    return _of_timm(backbone) if is_timm(backbone) else _of_torchvision(backbone)


def preprocessing_of(backbone: str, weights: str, image_px: int | None) -> Preprocessing:
    """Return the preprocessing of the weights, at `image_px` if given (the resize keeps its ratio to the crop).

    Weights that are not published (a path, none) are taken to expect what the backbone's default ones do.

    Raises:
        WeightsError, ConfigError: see `published_weights`.
    """
    published = published_weights(backbone)
    known = published.get(_origin(weights)) or published.get("DEFAULT")
    if known is None:  # an architecture of timm without weights
        own = _timm_preprocessing(timm().get_pretrained_cfg(_architecture(backbone)) or timm().models.PretrainedCfg())
    else:
        own = known.preprocessing
    side = image_px or own.crop_px
    return replace(own, crop_px=side, resize_px=max(side, round(own.resize_px * side / own.crop_px)))


def _origin(weights: str) -> str:
    """Return the weights that a run started from, if these are its checkpoint; else the same."""
    if not weights.endswith(".pt"):
        return weights
    with contextlib.suppress(OSError, ValueError, YAMLError):
        config = load_yaml((Path(weights).expanduser().parent / "config.yaml").read_text(encoding="utf-8"))
        if isinstance(config, dict) and config.get("weights") != weights:
            return _origin(str(config.get("weights", weights)))
    return weights


def code_of(backbone: str) -> str:
    """Return the backbone's name, with the version of timm if its code is timm's."""
    return f"{backbone} of timm {timm().__version__}" if is_timm(backbone) else backbone


def is_timm(backbone: str) -> bool:
    """Return whether the backbone is one of timm's."""
    return backbone.startswith(TIMM_PREFIX)


@cache
def timm() -> ModuleType:
    """Return the package timm.

    Raises:
        WeightsError: it can't be imported.
    """
    try:
        import timm
    except ImportError as error:
        raise WeightsError(
            f"backbone: {TIMM_PREFIX}... needs the package timm, which can't be imported ({error}). Install it with "
            "`make setup`, or with `python -m pip install '.[timm]'` in this project's folder"
        ) from error
    logging.getLogger("timm").setLevel(logging.WARNING)  # it announces each load
    module: ModuleType = timm
    return module


@cache
def _of_torchvision(backbone: str) -> dict[str, PublishedWeights]:
    import torchvision

    published = {}
    for name, entry in torchvision.models.get_model_weights(backbone).__members__.items():
        preset = entry.transforms()
        file_name = str(entry.url).rsplit("/", 1)[-1]
        published[name] = PublishedWeights(
            identifier=file_name,
            url=str(entry.url),
            file_name=file_name,
            hub=None,
            size=float(entry.meta.get("_file_size", 0)) * 1e6,
            license=TORCHVISION_LICENSE,
            preprocessing=Preprocessing(
                crop_px=preset.crop_size[0],
                resize_px=preset.resize_size[0],
                mean=tuple(preset.mean),
                std=tuple(preset.std),
                interpolation=preset.interpolation.value,
            ),
        )
    return published


@cache
def _of_timm(backbone: str) -> dict[str, PublishedWeights]:
    architecture = _architecture(backbone)
    entries = {
        name.partition(".")[2]: settings
        for name, settings in timm().models.get_arch_pretrained_cfgs(architecture).items()
        if settings.hf_hub_id or isinstance(settings.url, str)
    }
    published = {tag or "DEFAULT": _of_timm_entry(architecture, tag, entry) for tag, entry in entries.items()}
    default = timm().get_pretrained_cfg(architecture)
    if default is not None and default.tag in published:
        published["DEFAULT"] = published[default.tag]
    return published


def _of_timm_entry(architecture: str, tag: str, entry: Any) -> PublishedWeights:
    name = f"{architecture}.{tag}" if tag else architecture
    hub = (str(entry.hf_hub_id), entry.hf_hub_filename or "model.safetensors") if entry.hf_hub_id else None
    suffix = f".{hub[1].rpartition('.')[2]}" if hub else ""
    return PublishedWeights(
        identifier=f"{TIMM_PREFIX}{name}",
        url=None if hub else entry.url,
        file_name=f"{name}{suffix}" if hub else entry.url.rsplit("/", 1)[-1],
        hub=hub,
        size=0.0,
        license=entry.license,
        preprocessing=_timm_preprocessing(entry),
    )


def _timm_preprocessing(entry: Any) -> Preprocessing:
    """Return what weights expect, of timm's data configuration (timm/data/config.py).

    `crop_pct` is the share of the resized short side that the crop takes. Where timm squashes the image or adds a
    border instead (7% of its weights), the central crop is used all the same.
    """
    side = entry.input_size[-1]
    return Preprocessing(
        crop_px=side,
        resize_px=floor(side / entry.crop_pct),
        mean=tuple(entry.mean),
        std=tuple(entry.std),
        interpolation=entry.interpolation if entry.interpolation in ("bilinear", "bicubic") else "bicubic",
    )


def _architecture(backbone: str) -> str:
    """Return timm's name of the architecture.

    Raises:
        ConfigError: timm has none of this name.
    """
    name = backbone.removeprefix(TIMM_PREFIX)
    if not timm().is_model(name):
        hint = nearest(name, timm().list_models())
        fault = f"backbone: timm {timm().__version__} has no architecture {name!r}.{hint}"
        raise ConfigError([fault + ("" if hint else " `timm.list_models()` lists them")], "the config")
    return name


def unknown_weights_message(backbone: str, weights: str) -> str:
    """Return why these weights can't be used: neither published nor a file."""
    known = [*published_weights(backbone), "none"]
    listed = ", ".join(known[:MAX_LISTED]) + (f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else "")
    return (
        f"weights: {weights!r} is no file, and {backbone} has no weights of this name."
        f"{nearest(weights, known)} Known: {listed}, or a path to a state dict"
    )

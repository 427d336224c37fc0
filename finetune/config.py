"""Every field of a run: its name, default, sentence and check.

The fields are the keys of sweep files, the flags of `python -m finetune`, the columns of results and the
documentation. Checking needs neither torch nor the data.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from finetune.errors import ConfigError, nearest
from finetune.system import documents
from finetune.system.output import one_line

Strategy = Literal["scratch", "head", "partial", "gradual", "lpft", "full"]
Keep = Literal["best_last", "best", "none", "every"]
Schedule = list[tuple[int, float]]  # [(epochs finished, share of the backbone's blocks that trains from then on)]

# The pretrained blocks' rate as a share of the head's, where `backbone_lr` is not given: the head starts from random
# weights and has far to go, the blocks must not lose what they know.
BACKBONE_LR_SHARE = 0.2

# Augmented views of each image that a frozen prefix sees, unless `views` is given (docs/speed.md).
DEFAULT_VIEWS = 4

TIMM_PREFIX = "timm/"  # of backbones that are timm's; a weights tag may follow, as in timm/resnet50.a1_in1k
_TIMM_NAME = re.compile(r"timm/[a-z0-9_]+(\.[a-zA-Z0-9_]+)?")

MAX_FOLDS = 100
MIN_ALPHA = 0.01  # of MixUp and CutMix; below it, hardly an image would be mixed


def _no_bool(value: Any) -> Any:
    """Refuse true and false where a number is meant: Python would take them for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def _parsed(value: Any) -> Any:
    """Read a schedule given as text: W&B's agent and the command line hand lists over as strings."""
    if not isinstance(value, str):
        return value
    try:
        return documents.load_yaml(value)
    except yaml.YAMLError:
        raise ValueError("can't be read as a list") from None


def _on_off(value: Any) -> Any:
    """Return the words on and off, which YAML 1.1 reads as true and false."""
    text = str(value).lower()
    return {"true": "on", "yes": "on", "false": "off", "no": "off"}.get(text, value)


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool)]


class Config(BaseModel):
    """One run. Build it with `parse_config`, which reports all faults at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = Field(
        "inaturalist12k",
        description="inaturalist12k, demo, a folder of images, or a CSV file of path,label[,split][,group]",
        min_length=1,
    )
    backbone: str = Field(
        "efficientnet_v2_s",
        description="a torchvision classification network, or timm/NAME for one of timm's (timm/NAME.TAG names its "
        "weights, too)",
    )
    weights: str = Field(
        "DEFAULT",
        min_length=1,
        description="a name that torchvision (IMAGENET1K_V1) or timm (a1_in1k) publishes weights under, DEFAULT, none, "
        "demo, or a path to a state dict (.pth, .safetensors, an earlier run's best.pt)",
    )
    strategy: Strategy = Field("partial", description=f"what trains, and when: {', '.join(get_args(Strategy))}")
    unfreeze: Annotated[Schedule | None, BeforeValidator(_parsed)] = Field(
        None,
        description="the schedule of partial, gradual or lpft, as pairs [[epoch, share], ...]: once that many epochs "
        "are finished, this share of the backbone's blocks, counted from the head, trains (default: the strategy's)",
    )
    lr: Float = Field(1e-3, gt=0, le=10, description="the head's learning rate")
    backbone_lr: Float | None = Field(
        None, gt=0, le=10, description=f"the pretrained blocks' learning rate (default: {BACKBONE_LR_SHARE} of lr)"
    )
    block_decay: Float = Field(
        1.0, gt=0, le=1, description="factor on the rate from one backbone block to the next, going away from the head"
    )
    weight_decay: Float = Field(0.01, ge=0, le=1, description="AdamW's decoupled weight decay, not on 1-D parameters")
    epochs: Int = Field(10, ge=1, le=10_000, description="passes over the training images")
    batch_size: Int = Field(32, ge=1, le=65_536, description="images per optimizer step")
    image_px: Int | None = Field(
        None, ge=16, le=2048, description="side of the square the network sees, in pixels (default: the weights' own)"
    )
    augment: Literal["none", "light", "standard", "strong"] = Field(
        "standard", description="none, light, standard or strong; `python -m finetune.data show` shows what they do"
    )
    erasing: Float = Field(0.0, ge=0, le=1, description="share of the training views of which a random part is erased")
    mixup: Float = Field(
        0.0,
        ge=0,
        le=10,
        description="alpha of MixUp: training images are blended in pairs, with their labels; 0: off",
    )
    cutmix: Float = Field(
        0.0,
        ge=0,
        le=10,
        description="alpha of CutMix: a part of another image is pasted in; with mixup too, batches get either",
    )
    views: Int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="while a prefix is frozen: number of augmented views of each image that take turns, the same for "
        f"every seed; 0: a new view in each epoch (default: {DEFAULT_VIEWS}; 1 without augmentation)",
    )
    start_px: Int | None = Field(
        None,
        ge=16,
        le=2048,
        description="if all blocks train: side of the training images at first; it rises to image_px in four stages "
        "(default: image_px in every epoch)",
    )
    label_smoothing: Float = Field(0.1, ge=0, lt=1, description="share of the target spread over all classes")
    balance: Literal["none", "weights", "sampler"] = Field(
        "none",
        description="against unequal classes: weights counts rare ones more in the loss, sampler shows them more often",
    )
    dropout: Float = Field(0.2, ge=0, lt=1, description="dropout before the head's linear layer")
    warmup_epochs: Float = Field(0.5, ge=0, description="epochs at the start in which the rate rises to its full value")
    rewarm_epochs: Float = Field(
        0.5, ge=0, description="epochs over which the learning rate of a newly unfrozen block rises"
    )
    patience: Int | None = Field(
        None,
        ge=1,
        description="stop after so many epochs without a better result on val, counted from the last unfreeze on "
        "(default: never)",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic in training: auto is bf16 on a GPU that has it, fp32 elsewhere"
    )
    seed: Int = Field(0, ge=0, lt=2**31, description="seed of initialisation, order and augmentation")
    split_seed: Int = Field(0, ge=0, lt=2**31, description="seed of the split where the data does not come split")
    train_share: Float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the training images to train on, to see what fewer would do; a smaller share is part of "
        "a larger one, and every class keeps an image",
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        description="images of one group stay in one split: a regular expression on the path inside the data folder, "
        "whose first capture group (or whole match) names the group, such as '([^/]+)_[0-9]+[.]jpg$'",
    )
    folds: Int | None = Field(
        None, ge=2, le=MAX_FOLDS, description="cross-validation: number of parts the images are split into"
    )
    fold: Int | None = Field(
        None, ge=0, lt=MAX_FOLDS, description="which of these parts is left out of training, from 0 on"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where to compute: auto takes a GPU if there is one"
    )
    loader_workers: Int | None = Field(
        None, ge=0, le=256, description="processes that load images; changes no result (default: by device)"
    )
    cache: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_off)] = Field(
        "auto",
        description="store decoded images and activations of the frozen prefix on disk, for all runs: on, off, or "
        "auto, which stores what pending runs read at least twice, if it fits",
    )
    keep: Keep = Field(
        "best_last",
        description="weights that stay once a run is finished: best_last (best.pt and last.pt), best (the one that val "
        "chose), none (numbers alone), every (each epoch's too); changes no result",
    )
    upload_best: bool = Field(False, description="send best.pt to W&B as an artifact, where the run is tracked there")


def parse_config(values: Mapping[str, Any], where: str) -> Config:
    """Return the config with these fields, the rest at their defaults.

    Args:
        values: field -> value; a value may be text, as it comes from a command line.
        where: what to name in an error, such as the sweep file.

    Raises:
        ConfigError: with every fault, unknown fields and their nearest names among them.
    """
    faults = []
    for name in values:
        if name not in Config.model_fields:
            faults.append(f"{name}: no such field.{nearest(name, Config.model_fields)}")
    known = {name: value for name, value in values.items() if name in Config.model_fields}
    try:
        config = Config(**known)
    except ValidationError as error:
        raise ConfigError(faults + _describe(error), where) from None
    faults += _joint_faults(config)
    if faults:
        raise ConfigError(faults, where)
    return config


def _describe(error: ValidationError) -> list[str]:
    """Return one line a faulty field, in this project's words."""
    lines: dict[str, str] = {}
    for fault in error.errors():
        name, given = str(fault["loc"][0]), fault["input"]
        if name == "strategy" and isinstance(given, str):
            choices = get_args(Strategy)
            lines[name] = f"{given!r} is unknown.{nearest(given, choices)} Known: {', '.join(choices)}"
        elif name == "unfreeze":
            lines[name] = f"{given!r} does not fit pairs [[epoch, share], ...]: {fault['msg']}"
        elif fault["type"] == "string_type":
            lines[name] = f"{given!r} is no text: put it in quotes, such as {name}: {{value: '...'}}"
        else:
            lines[name] = f"{given!r}: {fault['msg'].removeprefix('Value error, ')}"
    return [f"{name}: {line}" for name, line in lines.items()]


def _joint_faults(config: Config) -> list[str]:
    """Return the faults that pydantic's checks of single fields do not see."""
    faults = [
        f"{name}: {one_line(getattr(config, name))!r} has control characters"
        for name in ("data", "weights", "group_by")
        if one_line(getattr(config, name) or "") != (getattr(config, name) or "")
    ]
    faults += _backbone_faults(config)
    if config.warmup_epochs > config.epochs:
        faults.append(f"warmup_epochs: {config.warmup_epochs} is more than the {config.epochs} epochs of the run")
    if config.start_px is not None and config.image_px is not None and config.start_px > config.image_px:
        faults.append(f"start_px: {config.start_px} is more than image_px, {config.image_px}")
    if config.group_by is not None:
        try:
            re.compile(config.group_by)
        except re.error as error:
            faults.append(f"group_by: {config.group_by!r} is no regular expression: {error}")
    faults += _mix_faults(config)
    faults += _fold_faults(config)
    if config.upload_best and config.keep == "none":
        faults.append("upload_best: with keep: none there is no best.pt to send; use keep: best")
    steps = config.unfreeze
    if steps is not None:
        epochs, shares = [epoch for epoch, _ in steps], [share for _, share in steps]
        if not steps or epochs[0] != 0:
            faults.append("unfreeze: the first pair must be for epoch 0, such as [[0, 0.33], [3, 1]]")
        elif epochs != sorted(set(epochs)) or epochs[-1] >= config.epochs:
            faults.append(f"unfreeze: epochs must rise and stay below the run's {config.epochs}, not {epochs}")
        elif shares != sorted(shares) or not 0 <= shares[0] <= shares[-1] <= 1:
            faults.append(f"unfreeze: shares must lie in [0, 1] and never fall, not {shares}")
    return faults


def is_backbone(name: str) -> bool:
    """Return whether a backbone may have this name; which architectures timm has is not asked here."""
    return name in BACKBONES or _TIMM_NAME.fullmatch(name) is not None


def _backbone_faults(config: Config) -> list[str]:
    """Return what is wrong with the backbone's name, or with a tag in it."""
    name, weights = config.backbone, config.weights
    if not is_backbone(name):
        known = "" if nearest(name, BACKBONES) else f" Known: timm/NAME, {', '.join(BACKBONES)}"
        return [f"backbone: {name!r} is unknown.{nearest(name, BACKBONES)}{known}"]
    tag = name.partition(".")[2]
    if tag and weights not in ("DEFAULT", tag) and config.strategy != "scratch":
        return [f"weights: {weights!r}, but the backbone's name asks for {tag!r}: leave one of the two out"]
    return []


def _mix_faults(config: Config) -> list[str]:
    """Return what is wrong with MixUp and CutMix."""
    alphas = {name: getattr(config, name) for name in ("mixup", "cutmix") if getattr(config, name)}
    faults = [
        f"{name}: {alpha} is too small an alpha: {MIN_ALPHA} or more, or 0 for off"
        for name, alpha in alphas.items()
        if alpha < MIN_ALPHA
    ]
    if alphas and config.views:
        faults.append(
            f"views: {config.views} can't be kept, as {' and '.join(alphas)} mix images anew in each step: leave "
            "views out, or at 0"
        )
    return faults


def _fold_faults(config: Config) -> list[str]:
    """Return what is wrong with the fold of a cross-validation that this run is."""
    folds, fold = config.folds, config.fold
    if folds is None:
        return [] if fold is None else [f"fold: {fold} of how many? Give folds too, such as folds: 5"]
    if fold is None:
        return [f"folds: a run is one of the {folds}: give fold, from 0 to {folds - 1} (agent.py --folds {folds}: all)"]
    return [] if fold < folds else [f"fold: {fold} is none of the {folds} folds: they are 0 to {folds - 1}"]


def to_dict(config: Config) -> dict[str, Any]:
    """Return the fields as plain values, fit for YAML and JSON; `parse_config` reads them back."""
    return json.loads(config.model_dump_json())  # type: ignore[no-any-return]


BACKBONES = (
    *("alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{size}" for size in range(8)),
    *("efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s"),
    *("googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    *("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    *(f"regnet_x_{size}" for size in ("16gf", "1_6gf", "32gf", "3_2gf", "400mf", "800mf", "8gf")),
    *(f"regnet_y_{size}" for size in ("128gf", "16gf", "1_6gf", "32gf", "3_2gf", "400mf", "800mf", "8gf")),
    *("resnet101", "resnet152", "resnet18", "resnet34", "resnet50"),
    *("resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d"),
    *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
    *("squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t"),
    *("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2"),
)

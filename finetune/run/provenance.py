"""Provenance of a run: machine, versions, commit and command."""

import json
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch
import torchvision

from finetune.config import Config, to_dict
from finetune.pretrained import is_timm, published_weights, timm
from finetune.run.build import RunComponents
from finetune.run.preflight import InputFingerprints


def provenance(components: RunComponents, inputs: InputFingerprints) -> dict[str, Any]:
    """Return the provenance of a run as plain values: data, splits, versions, device, command."""
    splits, device = components.splits, components.settings.device
    return {
        "data_root": str(splits.root),
        "data_fingerprint": inputs.data,
        "weights_hash": inputs.weights,
        "weights_license": _license(components.config),
        "classes": list(splits.classes),
        "splits": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        "splits_from": list(splits.notes),
        "blocks": len(components.model.blocks),
        "git_commit": git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            **({"timm": timm().__version__} if is_timm(components.config.backbone) else {}),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "command": _command(components.config),
    }


def _license(config: Config) -> str | None:
    """Return the licence that the weights are published under, or None where it is not known."""
    published = published_weights(config.backbone).get(config.weights)
    return published.license if published else None


def _command(config: Config) -> str:
    """Return the shell command that repeats this run."""
    words = ["python", "-m", "finetune"]
    for name, value in to_dict(config).items():
        if value != Config.model_fields[name].default:
            words += [f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def git_commit() -> str | None:
    """Return the commit of this code, with -dirty if files have changed since, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

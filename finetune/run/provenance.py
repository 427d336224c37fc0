"""Where, on what and by which command a run was made."""

import json
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch
import torchvision

from finetune.config import Config, to_dict
from finetune.data.splits import Splits


def provenance(
    config: Config, splits: Splits, blocks: int, device: torch.device, identity: tuple[str, str]
) -> dict[str, Any]:
    """Return where and on what a run is being made.

    Args:
        blocks: of the backbone.
        identity: data fingerprint and weights hash.
    """
    return {
        "data_root": str(splits.root),
        "data_fingerprint": identity[0],
        "weights_hash": identity[1],
        "classes": list(splits.classes),
        "splits": {"train": len(splits.train), "val": len(splits.val), "test": len(splits.test)},
        "splits_from": list(splits.how),
        "blocks": blocks,
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "command": _command(config),
    }


def _command(config: Config) -> str:
    """Return the command that makes this run anew, whoever started it."""
    words = ["python", "-m", "finetune"]
    for name, value in to_dict(config).items():
        if value != Config.model_fields[name].default:
            words += [f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


def _git_commit() -> str | None:
    """Return the commit of this code, with -dirty when files were changed since, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

"""The device and the precision that a network computes with."""

import os

import torch

from finetune.errors import ConfigError


def device_of(device: str = "auto") -> torch.device:
    """Return the device of this name; `auto` is a GPU (CUDA, else Apple's) if there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(device: str) -> None:
    """Raise ConfigError if this machine has no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            reason = "torch.cuda.is_available() is false"
        except (RuntimeError, AssertionError) as error:  # the driver's word
            reason = str(error).strip().splitlines()[0]
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
        raise _missing("cuda", reason + seen)
    if device == "mps" and not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        raise _missing("mps", "no Apple GPU here" if built else "this torch is built without it")


def _missing(device: str, reason: str) -> ConfigError:
    return ConfigError([f"device: {device} can't be used here ({reason}): use device: auto, or cpu"], "the config")


def autocast_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return bfloat16 for `bf16`, and for `auto` on a GPU with native bfloat16; else None, for float32."""
    is_native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and is_native) else None

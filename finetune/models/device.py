"""The device and the precision that a network computes with."""

import torch


def device_of(device: str = "auto") -> torch.device:
    """Return the device of this name; `auto` is a GPU (CUDA, else Apple's) if there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return bfloat16 for `bf16`, and for `auto` on a GPU with native bfloat16; else None, for float32."""
    is_native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and is_native) else None

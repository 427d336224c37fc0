"""Files of tensors: written with a checksum, read without running code in them."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.errors import WeightsError
from finetune.system.checksums import add_zip_checksum, zip_fault


def save_torch_file(content: Any, path: Path) -> None:
    """Write `content` with torch.save(), and a checksum of the file.

    Raises:
        OSError: the file can't be written.
    """
    try:
        with path.open("wb") as file:  # given a path, torch does not report why it failed
            torch.save(content, file)
    except RuntimeError as error:  # torch closes a file that could not be written
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    add_zip_checksum(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of torch.save(); runs no code in it.

    Raises:
        WeightsError: the file is no state dict, or known to be damaged.
    """
    if _is_zip(path) and (fault := zip_fault(path)):
        raise WeightsError(f"weights: {path} is damaged ({fault}). Copy or export it again")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights: {path} can't be read as a state dict ({first_line})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"weights: {path} holds no state dict (name -> tensor) of a network")
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"weights: {path} holds numbers that are not finite, in {name}")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _is_zip(path: Path) -> bool:
    """Return whether the file is a ZIP archive; files from before torch 1.6 are not."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # is_zipfile reads some of the archive, and can find damage
        return True

"""Files of tensors, written with a checksum."""

from pathlib import Path
from typing import Any

import torch

from finetune.system.checksums import add_zip_checksum


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

"""Reads rows of an entry of activations, without mapping the file."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.cache import entry_writer
from finetune.system import documents

FILE = "rows.bin"
MAX_BYTES_IN_MEMORY = 64e6  # a smaller entry, such as pooled features, stays in memory


class ActivationReader:
    """Activations of a split, one row an image.

    Rows are read, not mapped: mapped pages count as the process's own memory, and one run can touch many GB of them.
    An entry that is deleted meanwhile stays readable.

    Args:
        folder: of the entry. Its ABOUT has `type` (float16 or float32), `shape` (N, ...) and `channels_last`: whether
            rows (C, H, W) are stored as (H, W, C), the layout of convolutions on the CPU.

    Raises:
        OSError, ValueError: the entry is deleted or damaged.
    """

    def __init__(self, folder: Path) -> None:
        about = documents.read_json(folder / entry_writer.ABOUT)
        if about is None:
            raise FileNotFoundError(folder)
        self._type, self._shape = np.dtype(about["type"]), tuple(about["shape"])
        self._channels_last = bool(about["channels_last"])
        self._path, self._file = folder / FILE, (folder / FILE).open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._row_bytes = self._type.itemsize * int(np.prod(self._shape[1:]))
        self._rows: NDArray[Any] | None = None
        if self._row_bytes * len(self) <= MAX_BYTES_IN_MEMORY:
            self._rows = self._read(range(len(self)))

    def __len__(self) -> int:
        return int(self._shape[0])

    def take(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """Return the rows of these images, (B, ...) float32 on the device.

        Raises:
            OSError: the file is truncated, or can't be read.
        """
        stored = self._read(indices) if self._rows is None else self._rows[list(indices)]
        rows = torch.from_numpy(stored).to(device).float()
        return rows.permute(0, 3, 1, 2) if self._channels_last else rows

    def _read(self, indices: Sequence[int]) -> NDArray[Any]:
        rows = np.empty((len(indices), *self._shape[1:]), dtype=self._type)
        for row, index in zip(rows.reshape(len(indices), -1), indices, strict=True):
            self._file.seek(index * self._row_bytes)
            if self._file.readinto(row.data) != self._row_bytes:
                raise OSError(f"{self._path} is damaged: it ends before row {index + 1}")
        return rows

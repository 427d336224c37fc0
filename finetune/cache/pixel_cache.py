"""Disk cache of the base images of a split (see transforms.py): each image is decoded once for all runs.

An entry of the store holds, in the split's order,

    data.bin   (height, width, 3) uint8 of one image after the other
    index.bin  a row of int64 an image: where in data.bin it begins, its height, its width

A crop touches only the rows of pixels that it needs: the file is mapped, not read.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from finetune.cache import store
from finetune.cache.entry_writer import EntryWriter
from finetune.cache.store import NO_CALLBACKS, FillCallbacks
from finetune.data.images.image_io import map_ahead, open_image, read_image
from finetune.data.splits import Sample
from finetune.data.transforms import MAX_ASPECT, resize_for_cache
from finetune.errors import RunInterrupted
from finetune.pretrained import Preprocessing

logger = logging.getLogger(__name__)

PIXEL_VERSION = 2  # raise it whenever the same key would give other bytes
DATA, INDEX = "data.bin", "index.bin"
PROBED_IMAGES = 64  # images whose headers are read to estimate the size of the entry
CHANNELS = 3


class DecodedImages:
    """The base images of a split. Pickled, it is a path: another process maps the file itself.

    Raises:
        OSError, RuntimeError: the entry is being evicted.
    """

    def __init__(self, entry: Path) -> None:
        self.entry = entry
        self._index = np.fromfile(entry / INDEX, dtype=np.int64).reshape(-1, 3).tolist()
        # A private map: no process can write into the file through it, and torch needs no copy.
        self._data = torch.from_file(str(entry / DATA), shared=False, size=self._bytes(), dtype=torch.uint8)

    def _bytes(self) -> int:
        offset, height, width = self._index[-1]
        return int(offset + height * width * CHANNELS)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Tensor:
        """Return a base image, (3, h, w) uint8, a view of the file."""
        offset, height, width = self._index[index]
        return self._data.as_strided((CHANNELS, height, width), (1, width * CHANNELS, CHANNELS), offset)

    def __reduce__(self) -> tuple[type["DecodedImages"], tuple[Path]]:
        return DecodedImages, (self.entry,)


@dataclass(frozen=True)
class PixelCache:
    """The base images of one split in the store.

    Attributes:
        root: of the data, which the samples' paths start from.
        fingerprint: of the data (see `catalog.fingerprint`).
    """

    root: Path
    samples: Sequence[Sample]
    preprocessing: Preprocessing
    fingerprint: str

    def open(self) -> DecodedImages | None:
        """Return the base images, or None where they are not cached."""
        with contextlib.suppress(OSError, RuntimeError):  # deleted by hand at this moment
            entry = store.find_verified(self._name())
            if entry is not None:
                return DecodedImages(entry)
        return None

    def build(self, threads: int, callbacks: FillCallbacks = NO_CALLBACKS) -> DecodedImages | None:
        """Return the base images, decoded by `threads` threads if they are not cached yet.

        Returns None, and logs why, where the disk has no room: each use of an image then decodes it.

        Raises:
            DataError: an image can't be read.
            UserError: see `store.budget_bytes`.
            RunInterrupted: `callbacks` ask for it; the next call continues after the images that are decoded.
        """
        images = self.open()
        if images is not None:
            return images
        needed = self.expected_bytes()
        try:
            if not store.make_room(needed, [self._name()]):
                logger.info(
                    f"cache: no room for {len(self.samples)} decoded images ({needed / 1e9:.2f} GB of "
                    f"{store.budget_bytes() / 1e9:.1f}; {store.BUDGET_VARIABLE}): decodes them in each epoch"
                )
                return None
            with store.writing_entry(self._name(), callbacks) as writer:
                if writer is not None:  # else another process has decoded them meanwhile
                    self._fill(writer, threads, callbacks)
            return self.open()
        except OSError as error:
            logger.info(f"cache: can't be written ({error}); decodes the images in each epoch")
            return None

    def expected_bytes(self) -> int:
        """Return about how much disk the base images take, judged by the headers of some images."""
        ratios = []
        for sample in self.samples[:: max(1, len(self.samples) // PROBED_IMAGES)]:
            with contextlib.suppress(Exception), open_image(self.root / sample.path) as image:  # decoding will name it
                ratios.append(min(max(image.size) / min(image.size), MAX_ASPECT))
        mean = sum(ratios) / len(ratios) if ratios else 1.0
        return round(len(self.samples) * mean * self.preprocessing.resize_px**2 * CHANNELS)

    def _name(self) -> str:
        """Return the entry's name: a hash of all that decides its bytes, libraries included."""
        key = store.key_of(
            version=PIXEL_VERSION,
            libraries=[
                PIL.__version__,
                torch.__version__,
                torchvision.__version__,
                torch.backends.cpu.get_cpu_capability(),
            ],
            data=self.fingerprint,
            pictures=[sample.path for sample in self.samples],
            resize_px=self.preprocessing.resize_px,
            interpolation=self.preprocessing.interpolation,
        )
        return f"pictures-{key}"

    def _fill(self, writer: EntryWriter, threads: int, callbacks: FillCallbacks) -> None:
        """Decode the images that the entry does not have yet, and finish it."""
        count = len(self.samples)
        missing = self.samples[writer.rows :]
        with contextlib.closing(map_ahead(self._decode, missing, threads, 2 * threads)) as images:
            for image in images:
                pixels = image.permute(1, 2, 0).contiguous().numpy()
                index = np.array([writer.size(DATA), *pixels.shape[:2]], dtype=np.int64)
                writer.append({DATA: pixels, INDEX: index}, rows=1)
                callbacks.on_progress(writer.rows / count)
                if callbacks.interrupted():
                    raise RunInterrupted(f"stopped while decoding images, {writer.rows} of {count} done")
        resized = {"resize_px": self.preprocessing.resize_px, "interpolation": self.preprocessing.interpolation}
        writer.finish({"pictures": count, **resized})

    def _decode(self, sample: Sample) -> Tensor:
        return resize_for_cache(read_image(self.root / sample.path), self.preprocessing)

"""The cache of decoded images: the base images of a split (see transforms.py), each decoded once for all runs.

An entry of the store holds, in the split's order,

    data.bin   (height, width, 3) uint8 of one image after the other
    index.bin  a row of int64 an image: where in data.bin it begins, its height, its width

A crop touches only the rows of pixels that it needs: the file is mapped, not read.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from torch import Tensor

from finetune.cache import entry_writer, store
from finetune.data.image_io import open_image, read_image
from finetune.data.splits import Sample
from finetune.data.transforms import MAX_ASPECT, Preprocessing, resize_for_cache
from finetune.errors import RunInterrupted

logger = logging.getLogger(__name__)

PIXEL_VERSION = 2  # to be raised whenever the same key would give other bytes
DATA, INDEX = "data.bin", "index.bin"
PROBED_IMAGES = 64  # images whose headers tell how much disk all of them will take
CHANNELS = 3


class DecodedImages:
    """The base images of a split. It can be handed to another process, which then maps the file by itself.

    Raises:
        OSError, RuntimeError: the entry has been evicted at this moment.
    """

    def __init__(self, entry: Path) -> None:
        self.entry = entry
        self._index = np.fromfile(entry / INDEX, dtype=np.int64).reshape(-1, 3).tolist()
        # A private map: no process can write into the file by it, and torch needs no copy to call it its own.
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


def open_pixels(
    samples: Sequence[Sample],
    to: Preprocessing,
    fingerprint: str,
) -> DecodedImages | None:
    """Return the cached base images of a split, or None where they are not cached.

    Args:
        fingerprint: of the data (see `catalog.fingerprint`).
    """
    with contextlib.suppress(OSError, RuntimeError):  # deleted by hand at this moment
        entry = store.find_verified(_name(samples, to, fingerprint))
        if entry is not None:
            return DecodedImages(entry)
    return None


def build_pixels(
    root: Path,
    samples: Sequence[Sample],
    to: Preprocessing,
    fingerprint: str,
    *,
    threads: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
    on_wait: Callable[[], None] = lambda: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> DecodedImages | None:
    """Return the cached base images of a split, decoded first where they are not cached yet.

    Returns None, and says why, where the disk has no room: the images are then to be decoded each time they are used.

    Args:
        root: of the data, which the images' paths start from.
        fingerprint: of the data (see `catalog.fingerprint`).
        threads: that decode, side by side.
        on_progress: called with images done and all images, after each one.
        on_wait: called a few times a second while another process decodes them.
        interrupted: asked after each image and while waiting.

    Raises:
        DataError: an image can't be read.
        UserError: see `store.budget_bytes`.
        Interrupted: as asked; what was decoded is kept, and the next call goes on from there.
    """
    pixels = open_pixels(samples, to, fingerprint)
    if pixels is not None:
        return pixels
    name = _name(samples, to, fingerprint)
    needed = expected_bytes(root, samples, to)
    try:
        if not store.make_room(needed, [name]):
            logger.info(
                f"cache: no room for {len(samples)} decoded images ({needed / 1e9:.2f} GB of "
                f"{store.budget_bytes() / 1e9:.1f}; {store.BUDGET_VARIABLE}): decodes them in each epoch"
            )
            return None
        with store.writing_entry(name, interrupted, on_wait) as draft:
            if draft is not None:  # else another process has decoded them meanwhile
                _fill(draft, root, samples, to, threads, on_progress, interrupted)
        return open_pixels(samples, to, fingerprint)
    except OSError as error:
        logger.info(f"cache: can't be written ({error}); decodes the images in each epoch")
        return None


def expected_bytes(root: Path, samples: Sequence[Sample], to: Preprocessing) -> int:
    """Return about how much disk the base images will take, as the headers of some of the images tell."""
    ratios = []
    for sample in samples[:: max(1, len(samples) // PROBED_IMAGES)]:
        with contextlib.suppress(Exception), open_image(root / sample.path) as image:  # reading it will name it
            ratios.append(min(max(image.size) / min(image.size), MAX_ASPECT))
    mean = sum(ratios) / len(ratios) if ratios else 1.0
    return round(len(samples) * mean * to.resize_px**2 * CHANNELS)


def _name(samples: Sequence[Sample], to: Preprocessing, fingerprint: str) -> str:
    """Return the entry's name: a hash of all that decides its bytes, the libraries that decode and resize included."""
    key = store.key_of(
        version=PIXEL_VERSION,
        libraries=[
            PIL.__version__,
            torch.__version__,
            torchvision.__version__,
            torch.backends.cpu.get_cpu_capability(),
        ],
        data=fingerprint,
        samples=[sample.path for sample in samples],
        resize_px=to.resize_px,
        interpolation=to.interpolation,
    )
    return f"pictures-{key}"


def _fill(
    draft: entry_writer.EntryWriter,
    root: Path,
    samples: Sequence[Sample],
    to: Preprocessing,
    threads: int,
    on_progress: Callable[[int, int], None],
    interrupted: Callable[[], bool],
) -> None:
    """Decode what is missing in the draft, and finish it."""
    count = len(samples)
    with contextlib.closing(_decoded(root, samples[draft.rows :], to, threads)) as bases:
        for base in bases:
            rows = base.permute(1, 2, 0).contiguous().numpy()
            place = np.array([draft.size(DATA), rows.shape[0], rows.shape[1]], dtype=np.int64)
            draft.append({DATA: rows, INDEX: place}, rows=1)
            on_progress(draft.rows, count)
            if interrupted():
                raise RunInterrupted(f"stopped while decoding images, {draft.rows} of {count} done")
    draft.finish({"pictures": count, "resize_px": to.resize_px, "interpolation": to.interpolation})


def _decoded(root: Path, samples: Sequence[Sample], to: Preprocessing, threads: int) -> Generator[Tensor]:
    """Yield base images in order, a few of them decoded ahead."""

    def decode(sample: Sample) -> Tensor:
        return resize_for_cache(read_image(root / sample.path), to)

    ahead: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for sample in samples:
                ahead.append(pool.submit(decode, sample))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

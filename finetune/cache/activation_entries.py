"""Activations of the frozen prefix as entries of the store: what decides their values, how they are named and stored.

An entry holds one row an image: what enters block `cut` for one view of each image of a split. It is computed in
float32, in eval mode, and stored in float16, or in float32 if float16 overflows. Its name is a hash of everything that
decides the values: the frozen blocks' own weights, the images, their preprocessing, and the view.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from finetune.cache import store
from finetune.cache.activation_reader import ActivationReader
from finetune.cache.reuse import ActivationKey
from finetune.data.splits import Sample
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.pretrained import Preprocessing

ACTIVATION_VERSION = 1  # raise it whenever the same key would give other values
STORED: type = np.float16  # half the bytes of float32, and 7 times closer to it than bfloat16 (in first gradients)


class StoredShape(NamedTuple):
    """The shape of a row as it is stored, and whether its channels come last there."""

    row: tuple[int, ...]
    channels_last: bool


@dataclass
class ActivationEntries:
    """The entries of one network, preprocessing and data set.

    Attributes:
        prefix: deep enough for all cuts that are used.
        origin: what else decides the values: `data` (the fingerprint), `augment`, `backbone`.
    """

    prefix: FrozenPrefix
    blocks: int
    preprocessing: Preprocessing
    device: torch.device
    splits: dict[str, Sequence[Sample]]
    origin: dict[str, Any]
    _shapes: list[StoredShape] = field(default_factory=list)

    def find(self, key: ActivationKey) -> ActivationReader | None:
        """Return the reader of a complete entry, whichever type it stores."""
        for dtype in (STORED, np.float32):
            with contextlib.suppress(OSError, ValueError):  # evicted at this moment
                folder = store.find_verified(self.name(key, dtype))
                if folder is not None:
                    return ActivationReader(folder)
        return None

    def size(self, key: ActivationKey) -> int:
        """Return the bytes of an entry in float16."""
        return 2 * len(self.splits[key.split]) * int(np.prod(self.shape(key.cut).row))

    def shape(self, cut: int) -> StoredShape:
        """Return how the rows of this cut are stored."""
        if not self._shapes:
            self._shapes = list(self._trace_shapes())
        return self._shapes[cut]

    @torch.no_grad()
    def _trace_shapes(self) -> Iterator[StoredShape]:
        """Send two images through the prefix, and yield the stored shape at each cut."""
        side = self.preprocessing.crop_px
        hidden = torch.zeros(2, 3, side, side, device=self.device).to(memory_format=torch.channels_last)
        for cut in range(len(self.prefix.hashes) + 1):
            hidden = self.prefix.run(hidden, max(cut - 1, 0), cut)
            channels_last = hidden.dim() == 4 and not hidden.is_contiguous()
            row = (hidden.permute(0, 2, 3, 1) if channels_last else hidden)[0]
            yield StoredShape(tuple(row.shape), channels_last)

    def name(self, key: ActivationKey, dtype: type) -> str:
        """Return the name of the entry that stores these activations in this type."""
        return f"activations-{store.key_of(**self._key_fields(key, dtype))}"

    def metadata(self, key: ActivationKey, dtype: type) -> dict[str, Any]:
        """Return what a complete entry says about itself."""
        shape = self.shape(key.cut)
        stored = {"shape": [len(self.splits[key.split]), *shape.row], "channels_last": shape.channels_last}
        return {**self._key_fields(key, dtype), **stored}

    def _key_fields(self, key: ActivationKey, dtype: type) -> dict[str, Any]:
        paths = "\n".join(sample.path for sample in self.splits[key.split])
        return {
            "version": ACTIVATION_VERSION,
            "blocks": hashlib.sha256("".join(self.prefix.hashes[: key.cut]).encode()).hexdigest(),
            "network": [self.origin["backbone"], key.cut],
            "device": self.device.type,
            "pictures": [key.split, hashlib.sha256(paths.encode()).hexdigest()],
            "preprocessing": asdict(self.preprocessing),
            "view": key.view,
            "type": np.dtype(dtype).name,
            **({} if key.view is None else {"augment": self.origin["augment"]}),
            "data": self.origin["data"],
        }

    def describe(self, key: ActivationKey) -> str:
        """Return a name for messages, such as `train view 0 before block 3 of 9`."""
        view = "" if key.view is None else f" view {key.view}"
        return f"{key.split}{view} before {self.describe_cut(key.cut)}"

    def describe_cut(self, cut: int) -> str:
        """Return what follows a cut, such as `block 3 of 9`."""
        return "the head" if cut == self.blocks else f"block {cut + 1} of {self.blocks}"

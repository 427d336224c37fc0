"""Random streams, each named by its purpose, so that they do not depend on each other or on history."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(*parts: int | str) -> int:
    """Return the seed of the random stream named by `parts`; streams of different names are independent."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator, which torchvision uses, within the block; restore its state at the end.

    torch.manual_seed() would seed the generators of GPUs, too.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)

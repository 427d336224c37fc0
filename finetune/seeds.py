"""Seeds of random streams, named by what they are for."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(*parts: int | str) -> int:
    """Return a seed for the random stream named by `parts`; streams of different names are independent."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Have torch's global stream on the CPU, which torchvision draws from, begin at a seed, and put it back at the end.

    The stream of a GPU is left alone, which torch.manual_seed() would seed too.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)

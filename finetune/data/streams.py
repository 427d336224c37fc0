"""Seeds of random streams, named by what they are for."""

import hashlib


def stream_seed(*parts: int | str) -> int:
    """Return a seed for the random stream named by `parts`; streams of different names are independent."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1

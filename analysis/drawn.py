"""What a picture was drawn from, kept in the picture: what has not changed since the last report is not drawn again."""

import hashlib
import re
import struct
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image

KEY = "Drawn from"  # of a PNG's texts; a PDF has it among its keywords
_IN_PDF = re.compile(rb"/Keywords \(([0-9a-f]{64})\)")
DRAWING = ("matplotlib", "seaborn", "numpy", "pandas", "scipy", "pillow")  # whose versions can change a picture


def digest(*shown: Any) -> str:
    """Return a hash of what a picture shows, and of the code and libraries that draw it.

    The order of rows counts, their index does not: it moves when another run joins.

    Args:
        shown: frames, arrays, dataclasses, collections and plain values.

    Raises:
        TypeError: of something else, of which equal ones could not be told.
    """
    state = hashlib.sha256(_code().encode())
    _feed(state, shown)
    return state.hexdigest()


def is_ours(path: Path) -> bool:
    """Whether this PNG or PDF was drawn by a report, whatever it shows: others are a user's."""
    try:
        if path.suffix == ".pdf":
            return _IN_PDF.search(path.read_bytes()) is not None
        with Image.open(path) as image:
            return KEY in image.info
    except OSError:
        return False


def is_drawn(path: Path, key: str) -> bool:
    """Return whether this PNG or PDF is there, whole, and was drawn from what `key` stands for."""
    try:
        if path.suffix == ".pdf":
            content = path.read_bytes()
            return key.encode() in content and content.rstrip().endswith(b"%%EOF")
        with Image.open(path) as image:
            same = image.info.get(KEY) == key
            image.verify()
        return same
    except (OSError, ValueError, SyntaxError, struct.error):  # what Pillow raises at damage of one kind or another
        return False


def _feed(state: Any, value: Any) -> None:
    """Put a value into a hash, with its type and size, so that different values can't look alike."""
    kind = type(value)
    state.update(f"{kind.__name__}(".encode())
    if isinstance(value, pd.DataFrame):
        for name in value:
            _feed(state, name)
            _feed(state, value[name])
    elif isinstance(value, pd.Series):
        _feed(state, value.to_numpy())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        state.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, np.ndarray | list | tuple):
        state.update(f"{len(value)}:".encode())
        for item in value:
            _feed(state, item)
    elif isinstance(value, dict):
        state.update(f"{len(value)}:".encode())
        for item in value.items():
            _feed(state, item)
    elif is_dataclass(value):
        for field in fields(value):
            _feed(state, getattr(value, field.name))
    elif value is None or value is pd.NA or isinstance(value, str | bytes | bool | int | float | np.generic):
        text = repr(value)
        state.update(f"{len(text)}:{text}".encode(errors="surrogatepass"))
    else:
        raise TypeError(f"{kind.__name__}: equal ones can't be told, so nothing can be drawn from it")
    state.update(b")")


@cache
def _code() -> str:
    """Return a hash of all that draws: this package, the libraries behind it, and the user's settings of these."""
    state = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in DRAWING).encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        state.update(file.read_bytes())
    # Of a copy: asked for its backend, the original looks for a window system, which no picture here depends on.
    settings = {name: value for name, value in rcParams.copy().items() if name != "backend"}
    state.update(repr(sorted(settings.items())).encode())
    state.update(findfont(FontProperties()).encode())
    return state.hexdigest()

"""YAML from anywhere: plain values in bounded time and memory, or one kind of error.

A file that somebody else wrote can hold 200,000 brackets, at which the parser of C overflows the stack and takes the
process with it, or aliases of aliases that come to billions of values once somebody prints them.
"""

import re
from typing import Any

import yaml

# libyaml's parser, where PyYAML was built with it, reads a thousand configs in a second instead of ten; equally safe.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_CHARACTERS = 16 * 2**20
MOST_DEPTH = 50
MOST_UNFOLDED = 64 * 2**20  # characters, with every alias written out, and SHARE for each value
SHARE = 8
MOST_DIGITS = 64
_IN_SIXTIES = re.compile(r"[-+]?[\d_:.]+")  # 1:30:00 is 5400; PyYAML takes the square of its length to find out


def load(text: str) -> Any:
    """Return what a YAML text holds; no object is made of it but plain ones.

    Raises:
        yaml.YAMLError: it is no YAML, holds a value that can't be, or is too large, too deep, or endless.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than the {MOST_CHARACTERS:,} that are read")
    try:
        _check_shape(text)
        return yaml.load(text, Loader=LOADER)
    except yaml.YAMLError:
        raise
    # PyYAML lets through what its own conversions raise: 2024-99-99 is a ValueError, !!timestamp x an AttributeError.
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(f"it holds a value that can't be read ({error})") from error


def _check_shape(text: str) -> None:
    """Go through the text without building anything of it.

    Raises:
        yaml.YAMLError: see `load`.
    """
    unfolded, sizes = 0, dict[str, int]()
    begun: list[tuple[str | None, int]] = []  # anchor, and how much came before, of what is open
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = unfolded - before
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, unfolded))
            unfolded += SHARE
            if len(begun) > MOST_DEPTH:
                raise yaml.YAMLError(f"it is nested more than {MOST_DEPTH} deep, {event.start_mark}")
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MOST_DIGITS and not event.style and _IN_SIXTIES.fullmatch(event.value):
                raise yaml.YAMLError(f"it has a number of {len(event.value):,} characters, {event.start_mark}")
            size = SHARE + len(event.value)
            unfolded += size
            if event.anchor is not None:
                sizes[event.anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes and any(event.anchor == anchor for anchor, _ in begun):
                raise yaml.YAMLError(f"*{event.anchor} is a part of itself, {event.start_mark}")
            unfolded += sizes.get(str(event.anchor), 0)
        if unfolded > MOST_UNFOLDED:
            raise yaml.YAMLError("its aliases, written out, are more than a file of this kind can mean")

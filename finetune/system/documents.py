"""YAML from anywhere: plain values in bounded time and memory, or one kind of error.

A file that somebody else wrote can hold 200,000 brackets, at which the parser of C overflows the stack and takes the
process with it, or aliases of aliases that come to billions of values once somebody prints them.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import CorruptFileError
from finetune.system.atomic import write_atomic

# libyaml's parser, where PyYAML was built with it, reads a thousand configs in a second instead of ten; equally safe.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_CHARACTERS = 16 * 2**20
MAX_DEPTH = 50
MAX_EXPANDED = 64 * 2**20  # characters, with every alias written out, and SHARE for each value
SHARE = 8
MAX_DIGITS = 64
_IN_SIXTIES = re.compile(r"[-+]?[\d_:.]+")  # 1:30:00 is 5400; PyYAML takes the square of its length to find out


def load_yaml(text: str) -> Any:
    """Return what a YAML text holds; no object is made of it but plain ones.

    Raises:
        yaml.YAMLError: it is no YAML, holds a value that can't be, or is too large, too deep, or endless.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than the {MAX_CHARACTERS:,} that are read")
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
            if len(begun) > MAX_DEPTH:
                raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep, {event.start_mark}")
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_DIGITS and not event.style and _IN_SIXTIES.fullmatch(event.value):
                raise yaml.YAMLError(f"it has a number of {len(event.value):,} characters, {event.start_mark}")
            size = SHARE + len(event.value)
            unfolded += size
            if event.anchor is not None:
                sizes[event.anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes and any(event.anchor == anchor for anchor, _ in begun):
                raise yaml.YAMLError(f"*{event.anchor} is a part of itself, {event.start_mark}")
            unfolded += sizes.get(str(event.anchor), 0)
        if unfolded > MAX_EXPANDED:
            raise yaml.YAMLError("its aliases, written out, are more than a file of this kind can mean")


# What is read of one file, far more than any run writes.
MAX_JSON_BYTES, MAX_HISTORY_BYTES = 64 * 2**20, 64 * 2**20  # bytes


def json_text(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON. NaN and infinity are refused with ValueError: they are not JSON."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON (see `json_text`), atomically."""
    write_atomic(path, json_text(value))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`, or None where there is no such file.

    Raises:
        CorruptFileError: it holds something else, or is too large or too deep to be one of these.
    """
    try:
        return parse_json_object(read_bounded_text(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        return None
    except CorruptFileError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptFileError(
            f"{path} is damaged: it holds no JSON object ({error}). Take it out of the way"
        ) from error


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Return the object in `path`; an empty one where there is no such file, or a damaged one."""
    try:
        return read_json(path) or {}
    except ValueError:
        return {}


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`; ValueError, TypeError or RecursionError where it is none."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}")
    return content


def read_bounded_text(path: Path, most: int) -> str:
    """Return a file's text; CorruptFileError where it is larger than `most` bytes."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise CorruptFileError(f"{path} is larger than the {most / 2**20:,.0f} MB that are read of it")
    return content.decode("utf-8")

"""YAML and JSON from untrusted files: plain values in bounded time and memory, or one kind of error.

A foreign YAML file may hold 200,000 brackets, which overflow the stack of libyaml's parser and crash the process, or
nested aliases that expand to billions of values.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune.errors import CorruptFileError
from finetune.system.atomic import write_atomic

# libyaml's parser, if PyYAML was built with it, reads a thousand configs in one second instead of ten; equally safe.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_CHARACTERS = 16 * 2**20
MAX_DEPTH = 50
MAX_EXPANDED = 64 * 2**20  # characters, with every alias expanded, and VALUE_CHARACTERS for each value
VALUE_CHARACTERS = 8
MAX_DIGITS = 64
MAX_JSON_BYTES, MAX_HISTORY_BYTES = 64 * 2**20, 64 * 2**20  # of one file, far more than any run writes
_BASE_60 = re.compile(r"[-+]?[\d_:.]+")  # 1:30:00 is 5400; PyYAML's conversion takes quadratic time


def load_yaml(text: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        yaml.YAMLError: the text is no YAML, holds an impossible value, or is too large, too deep, or recursive.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, more than the limit of {MAX_CHARACTERS:,}")
    try:
        _check_shape(text)
        return yaml.load(text, Loader=LOADER)
    except yaml.YAMLError:
        raise
    # PyYAML does not catch errors of its own conversions: 2024-99-99 is a ValueError, !!timestamp x an AttributeError.
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(f"it holds a value that can't be read ({error})") from error


def duplicate_keys(text: str) -> list[tuple[str, int, int]]:
    """Return each key that a mapping of a YAML text has twice, with both lines; YAML itself lets the last one win.

    Raises:
        yaml.YAMLError: the text is no YAML. Call `load_yaml` first, which refuses too large and too deep ones.
    """
    found = []
    open_nodes = [yaml.compose(text, Loader=LOADER)]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                open_nodes.append(value)
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                    found.append((key.value, lines[key.value], line))
    return found


def _check_shape(text: str) -> None:
    """Raise YAMLError for a text that would take too much time or memory, without building its values."""
    expanded, sizes = 0, dict[str, int]()
    open_collections: list[tuple[str | None, int]] = []  # anchor, and `expanded` before the collection
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_collections.pop()
            if anchor is not None:
                sizes[anchor] = expanded - before
        elif isinstance(event, yaml.CollectionStartEvent):
            open_collections.append((event.anchor, expanded))
            expanded += VALUE_CHARACTERS
            if len(open_collections) > MAX_DEPTH:
                raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep, {event.start_mark}")
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_DIGITS and not event.style and _BASE_60.fullmatch(event.value):
                raise yaml.YAMLError(f"it has a number of {len(event.value):,} characters, {event.start_mark}")
            size = VALUE_CHARACTERS + len(event.value)
            expanded += size
            if event.anchor is not None:
                sizes[event.anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes and any(event.anchor == anchor for anchor, _ in open_collections):
                raise yaml.YAMLError(f"*{event.anchor} contains itself, {event.start_mark}")
            expanded += sizes.get(str(event.anchor), 0)
        if expanded > MAX_EXPANDED:
            raise yaml.YAMLError("its aliases expand to far more than a file of this kind holds")


def json_text(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON; NaN and infinity, which JSON lacks, raise ValueError."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON (see `json_text`), atomically."""
    write_atomic(path, json_text(value))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None if there is no such file.

    Raises:
        CorruptFileError: the file holds no JSON object, or is too large or too deep.
    """
    try:
        return parse_json_object(read_bounded_text(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        return None
    except CorruptFileError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{path} is damaged: it holds no JSON object ({error}). Rename or delete it") from error


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, or an empty one if the file is missing or damaged."""
    try:
        return read_json(path) or {}
    except ValueError:
        return {}


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`, or raise ValueError, TypeError or RecursionError."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}")
    return content


def read_bounded_text(path: Path, max_bytes: int) -> str:
    """Return a file's text, or raise CorruptFileError if it is larger than `max_bytes`."""
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise CorruptFileError(f"{path} is larger than the limit of {max_bytes / 2**20:,.0f} MB")
    return content.decode("utf-8")

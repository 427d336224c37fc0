"""Command-line flags generated from the config's fields."""

import argparse
from functools import partial
from typing import Any

from finetune.config import Config, parse_config
from finetune.errors import ConfigError, nearest

# First field of each section -> its title; the fields of a section follow each other in `Config`.
SECTIONS = {
    "data": "data and network",
    "strategy": "what trains",
    "lr": "optimizer",
    "image_px": "images and augmentation",
    "label_smoothing": "loss, schedule and precision",
    "seed": "seeds and splits",
    "device": "machine, caches and files",
}


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every field, with dashes or underscores (--image-px, --image_px); absent flags set nothing."""
    group = parser.add_argument_group(SECTIONS["data"])
    for name, field in Config.model_fields.items():
        if name in SECTIONS and name != "data":
            group = parser.add_argument_group(SECTIONS[name])
        default = "" if field.default is None else f" (default: {field.default})"
        help_text = f"{field.description}{default}".replace("%", "%%")
        add_argument = partial(group.add_argument, dest=name, metavar="VALUE", default=argparse.SUPPRESS)
        add_argument(f"--{name.replace('_', '-')}", help=help_text)
        if "_" in name:  # as a sweep file spells it; --help shows the other alone
            add_argument(f"--{name}", help=argparse.SUPPRESS)


def parse_flags(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[argparse.Namespace, Config]:
    """Return the command's own arguments and the config from the flags.

    Raises:
        ConfigError: with all faults, unknown flags among them.
    """
    known, unknown = parser.parse_known_args(arguments)
    values: dict[str, Any] = {name: getattr(known, name) for name in Config.model_fields if hasattr(known, name)}
    flags = [f"--{name.replace('_', '-')}" for name in Config.model_fields]
    faults = [
        f"{word}: no such flag.{nearest(word.partition('=')[0], flags)}" for word in unknown if word.startswith("-")
    ]
    faults += [f"{word}: is no value of a flag" for word in unknown if not word.startswith("-") and not faults]
    try:
        config = parse_config(values, "the command line")
    except ConfigError as error:
        raise ConfigError(faults + error.faults, "the command line") from None
    if faults:
        raise ConfigError(faults, "the command line")
    return known, config

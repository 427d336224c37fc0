"""The data by hand: python -m finetune.data COMMAND ..., see `python -m finetune.data --help`."""

import argparse
import importlib
import sys

from finetune.system.output import command

# command -> (what it does, the module that adds its arguments and does it); imported when asked for, as some load torch
COMMANDS = {
    "check": ("say what is wrong with a folder of images", "finetune.data.check.command"),
    "show": ("draw what training sees of some images", "finetune.data.check.show_command"),
    "split": ("write which image trains, chooses and tests into a file that can be edited and used as data",
              "finetune.data.check.split_command"),
}  # fmt: skip


@command
def main(arguments: list[str]) -> int:
    """Do what the command line asks for, and return the exit code."""
    parser = argparse.ArgumentParser("python -m finetune.data", description="The data, by hand.", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = arguments[0] if arguments else ""
    for name, (what, module) in COMMANDS.items():
        kind = kinds.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", allow_abbrev=False)
        if name == asked:
            importlib.import_module(module).add_arguments(kind)
    known = parser.parse_args(arguments)
    return int(importlib.import_module(COMMANDS[known.command][1]).main(known))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

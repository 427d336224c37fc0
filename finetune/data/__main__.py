"""Commands on data: `python -m finetune.data COMMAND ...`; see `python -m finetune.data --help`."""

import argparse
import importlib
import sys

from finetune.system.output import command

# command -> (help, module); only the chosen one is imported, as some load torch
COMMANDS = {
    "check": ("say what is wrong with a folder of images", "finetune.data.check.command"),
    "show": ("draw what training sees of some images", "finetune.data.check.show_command"),
    "split": ("write which image trains, chooses and tests into a file that can be edited and used as data",
              "finetune.data.check.split_command"),
}  # fmt: skip


@command
def main(arguments: list[str]) -> int:
    """Run the command, and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m finetune.data", description="Check, show and split data.", allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = arguments[0] if arguments else ""
    for name, (summary, module) in COMMANDS.items():
        kind = kinds.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
        )
        if name == chosen:
            importlib.import_module(module).add_arguments(kind)
    options = parser.parse_args(arguments)
    return int(importlib.import_module(COMMANDS[options.command][1]).main(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

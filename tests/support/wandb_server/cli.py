"""The real `wandb` command, with agents that do not take five seconds to look again."""

import sys

PROGRAM = """\
import wandb.wandb_agent
wandb.wandb_agent.Agent.POLL_INTERVAL = {poll}
from wandb.cli.cli import cli
cli()
"""


def wandb_command(*arguments: str, poll: float = 0.5) -> list[str]:
    """Return the command line of `wandb ARGUMENTS`; its agents ask the server every `poll` seconds."""
    return [sys.executable, "-c", PROGRAM.format(poll=poll), *arguments]

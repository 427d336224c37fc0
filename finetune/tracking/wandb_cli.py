"""W&B's own agent (`wandb agent`), which ends when the process that started it is gone.

python -m finetune.tracking.wandb_cli ENTITY/PROJECT/ID ...    its input is a pipe that the parent process holds open
"""

import os
import signal
import sys
import threading

from finetune.system.output import make_streams_safe
from finetune.tracking.wandb_exit import bound_exit


def _end_with_parent() -> None:
    """Send this process SIGTERM, which W&B's agent passes on to its run, when standard input ends."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run `wandb agent` with this command line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bound_exit()
    make_streams_safe()  # before the client takes the streams: it prints an address that may hold a password
    from wandb.cli.cli import cli

    sys.argv = ["wandb", "agent", *sys.argv[1:]]
    cli()


if __name__ == "__main__":
    main()

"""Serve until killed, for trying things by hand: prints the two lines to export first."""

import argparse
import signal

from tests.support.wandb_server.server import API_KEY, serve


def main() -> None:
    """Print what to export, and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.wandb_server", description="Serve a W&B backend for tests."
    )
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1 (default: a free one)")
    with serve(parser.parse_args().port) as server:
        print(f"export WANDB_BASE_URL={server.url}\nexport WANDB_API_KEY={API_KEY}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()

"""A W&B backend on the loopback interface, for tests: the real client, CLI and API talk to it.

with serve() as server:
    subprocess.run(["wandb", "sweep", "file.yaml"], env=server.environment(tmp_path))
    server.sweeps(), server.runs()
"""

from tests.support.wandb_server.cli import wandb_command
from tests.support.wandb_server.server import API_KEY, Server, serve
from tests.support.wandb_server.store import ENTITY, Run, Sweep

__all__ = ["API_KEY", "ENTITY", "Run", "Server", "Sweep", "serve", "wandb_command"]

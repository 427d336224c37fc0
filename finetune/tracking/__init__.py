"""The copy of runs and sweeps on a W&B server. In finetune, only this room imports wandb.

    mirror_client.py    used by a run: starts the mirror process, tells it how the run ended
    mirror_process.py   the process that copies a run directory while the run goes on, or after it
    wandb_run.py        what a W&B run contains, and the calls of W&B's client that fill it
    sweep_address.py    the address of a sweep, without a request
    sweep_server.py     sweeps on the server: find, create, stop, failed runs
    wandb_cli.py        W&B's own agent, as a process that ends with its parent
    wandb_exit.py       ends W&B's own process within bounds

May import: errors, system, config, resolve, rundir, data.thumbnails.
"""

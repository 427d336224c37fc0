"""Agents: processes that start the runs of a sweep.

    training_api.py          the training code as agents call it, and the options of an agent
    local_agent.py           the agent of a sweep without a server
    fork_server.py run_process.py run_main.py    a run's process: where it is forked, seen from the agent, from inside
    wandb_agents.py          starts and watches W&B's own agents
    wandb_preparation.py launch.py    before these start; how they, and failed runs, are started
    wandb_trial.py           one run that W&B's agent has handed to a process

May import finetune.sweep, finetune.tracking and all rooms to their left; run_main.py imports the training code by name.
"""

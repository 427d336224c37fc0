"""Sweeps: their runs, the order in which they start, and the output of agents.

    command.py choose.py     the command line of agent.py, and the sweep that it names
    sweep_file.py search.py  a sweep file, and the points that it stands for, by W&B's search engine
    sweep_keys.py power.py   which keys of a sweep file are honoured; which differences a sweep can detect
    plan.py trials.py        points -> runs with their directories; points that a Bayesian search has proposed
    ordering.py racing.py early_stopping.py    the order of runs; further seeds for winners only; Hyperband
    folder_checks.py devices.py                before runs start: the sweep's folder, this machine's cores and GPUs
    display.py progress.py                     tables, progress bars, time left
    agents/                  processes that run a sweep
    forecast/                time and disk space ahead

May import all other rooms of finetune. Modules here do not import torch, except forecast/.
"""

"""Compares the runs of a sweep: run directories in; tables, figures and a report out. Trains nothing, loads no torch.

    sources/    run directories and W&B -> frames
    stats/      intervals, tests and models: numbers in, numbers out
    tables/     frames -> tables and decisions, without sentences
    figures/    tables -> figures
    report/     everything that is read
    pipeline    sources -> tables -> figures -> report

A room imports only the rooms above it, `errors` and `formatting`. From finetune, analysis imports only what needs no
torch. Commands: `python -m analysis`, `python -m analysis.wandb_report`.
"""

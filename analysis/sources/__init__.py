"""Run directories and W&B -> frames.

locate finds the folder that a user means, run_directories reads it into a `Sweep`, predictions and correctness read the
predictions of its runs, test_sets says which runs were tested on the same images. wandb/ fetches a sweep into the same
layout. Imports stats, formatting and errors of the analysis, and torch-free modules of finetune.
"""

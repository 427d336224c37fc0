"""A sweep on a W&B server -> run directories: client (the only importer of wandb), sync, store.

Imports errors of the analysis, and torch-free modules of finetune.
"""

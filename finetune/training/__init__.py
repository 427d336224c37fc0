"""The training loop and what it is made of. It receives parts (a model, batches, an optimizer), never a config.

loop          the Trainer: epochs of optimizer steps, val after each, when to stop
state         how far training has come, and the epoch under way; both go into checkpoints
batch_source  batches of train, val and test: images, or activations of the frozen prefix from the cache
optimizer     AdamW, its parameter groups, its state
lr_schedule   learning-rate multipliers by step
loss          forward pass and loss of a batch
divergence    NaN and infinity in losses and weights
evaluation    log-probabilities of a split (torch)
metrics       accuracy, calibration and other numbers (numpy; `analysis` imports it, so it must not import torch)
metering      seconds by phase, energy, memory

Imports errors, seeds, system, rundir, data, models and cache.
"""

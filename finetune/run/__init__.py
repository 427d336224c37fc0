"""One run from a config to a finished run directory; run.py is the table of contents.

fetch         downloads missing data and weights
preflight     checks a config's data and weights; fingerprints, splits
build         model, splits, optimizer and settings of a run
checkpoint    checkpoint files
resume        continues from the newest intact checkpoint
memory_check  tries the largest stage before the first epoch
run           runs it all
finish        tests the best epoch; predictions and summary
costs         time, memory, FLOPs and parameters for the summary
provenance    versions, commit and command of a run
log_lines     the lines that a run logs

Imports errors, seeds, system, config, resolve, rundir, data, models, cache and training.
"""

"""One fine-tuning run, from a checked config to a run directory. Read `run.py` first."""

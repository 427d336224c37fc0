"""Tests of analysis/report/wandb."""

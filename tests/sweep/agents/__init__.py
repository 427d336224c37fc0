"""Tests of finetune/sweep/agents."""

"""Tests of finetune/sweep and agent.py."""

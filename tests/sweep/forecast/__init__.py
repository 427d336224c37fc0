"""Tests of finetune/sweep/forecast."""

"""Tests of finetune/data/check."""

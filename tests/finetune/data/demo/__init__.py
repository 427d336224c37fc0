"""Tests of finetune/data/demo."""

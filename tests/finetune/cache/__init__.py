"""Tests of finetune/cache."""

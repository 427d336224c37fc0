"""Tests of finetune/data/images."""

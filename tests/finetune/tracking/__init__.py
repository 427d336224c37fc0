"""Tests of finetune/tracking."""

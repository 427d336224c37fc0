"""Tests of finetune.run."""

"""Tests of finetune.inference."""

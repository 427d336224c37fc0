"""Tests of finetune/models."""

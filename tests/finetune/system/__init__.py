"""Tests of finetune/system."""

"""Tests of finetune/rundir."""

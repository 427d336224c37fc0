"""Tests of the package finetune, room by room."""

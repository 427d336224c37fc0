"""Tests of analysis/sources."""

"""Tests of the analysis, room by room."""

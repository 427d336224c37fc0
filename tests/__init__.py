"""The tests, room by room like the code; tests/support/ has what several of them share."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the repository

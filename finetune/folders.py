"""Where the project keeps what it can make again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder for what the project can make again: $FINETUNE_CACHE, or the user's cache directory."""
    given = os.environ.get("FINETUNE_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("finetune-sweeps")

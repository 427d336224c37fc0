"""A real run on images of three colours, for tests of what is done with its network."""

from pathlib import Path

import pytest

from finetune.run.run import run
from tests.support.images import write_folder
from tests.support.small_runs import small


def leave_run(place: Path, name: str, epochs: int) -> None:
    """Leave `place`/pictures and the directory `name` below `place` of a finished run on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_CACHE", str(place / "cache"))
        folder = write_folder(place / "pictures", {"train": 10, "test": 4})
        config = small(folder, strategy="scratch", backbone="resnet18", epochs=epochs, lr=1e-3)
        run(config, place / name)

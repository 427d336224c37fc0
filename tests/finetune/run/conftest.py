"""Images and undisturbed runs that the tests of a file share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.run.run import run
from tests.support.images import write_folder
from tests.support.small_runs import small


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like `images`, for tests that only read it."""
    return write_folder(tmp_path_factory.mktemp("images"), {"train": 10, "test": 4})


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function (**fields) -> directory of a finished run with these fields, made once per file."""
    made: dict[str, Path] = {}

    def run_once(**fields: Any) -> Path:
        key = repr(sorted(fields.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            run(small(images, **fields), folder)
            made[key] = folder
        return made[key]

    return run_once

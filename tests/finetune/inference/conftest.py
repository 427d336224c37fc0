"""A finished run that the tests of this folder share."""

from pathlib import Path

import pytest

from tests.support.finished_run import leave_run


@pytest.fixture(scope="session")
def trained_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures/ of three colours and the directory run/ of a run that can tell them apart."""
    place = tmp_path_factory.mktemp("trained")
    leave_run(place, "run", 4)
    return place

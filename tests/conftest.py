"""What several tests share: a quiet, closed-off environment and a tiny folder of images."""

import os
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support import offline
from tests.support.processes import start_reaper

# The tests draw the same examples each time: what they say of a change is no chance. `make fuzz` draws others. There is
# no deadline: on a busy machine, an example may take any time.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("default"), max_examples=2_000, deadline=None
)
hypothesis.settings.load_profile("same")  # --hypothesis-profile names another

# For the whole session, before anything is imported: no test reaches another machine, nor does what it starts.
offline.install()
os.environ.update(offline.environment())

# Whatever tests start ends with this process, however that ends. SIGTERM is Ctrl-C: fixtures are torn down.
start_reaper(uuid.uuid4().hex)
signal.signal(signal.SIGTERM, signal.default_int_handler)

# One thread: the networks are tiny, and two tests at once would only take cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The files that take longest, which are begun first: otherwise one process is left with them at the end.
FIRST = (
    *("online/test_faults", "test_chaos", "cache/test_activation_cache", "online/test_agents"),
    *("online/test_wandb_server_agents", "rundir/test_integrity", "run/test_resume", "sources/test_test_sets"),
    *("run/test_interruption", "run/test_run", "online/test_publish", "test_end_to_end"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of these files before all others."""
    places = {name: number for number, name in enumerate(FIRST)}

    def place(item: pytest.Item) -> int:
        path = str(item.path.with_suffix(""))
        return next((number for name, number in places.items() if path.endswith(name)), len(FIRST))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _closed_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's W&B account and caches out of the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    for name in ("FINETUNE_INATURALIST_URL", "FINETUNE_WEIGHTS_URL"):  # nobody listens there
        monkeypatch.setenv(name, "http://127.0.0.1:9/file.zip")
    monkeypatch.setattr("finetune.system.download.PAUSE_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def _no_fork_server_left() -> Iterator[None]:
    """Fail a test that has an agent of runs in this process.

    Its fork server would stay, and the agents that later tests start as forks of this process would take it for theirs.
    """
    yield
    server = sys.modules.get("multiprocessing.forkserver")
    left = server and server._forkserver._forkserver_pid
    assert not left, "this test has left a fork server: give `python agent.py` to a process of its own"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with train/ and test/ of three classes that colour tells apart."""
    from tests.support.images import write_folder

    return write_folder(tmp_path / "pictures", {"train": 10, "test": 4})

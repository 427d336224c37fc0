"""A test run that is ended, however, ends all that its tests have started."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.processes import end_marked, marked, wait_until

# Starts an agent as a fork, with a run that ignores SIGTERM, and a process that starts another in a session of its own.
TEST = """
import subprocess, sys
from pathlib import Path
import pytest
from tests.support.agent_processes import Place, write_sweep
from tests.support.processes import wait_until

@pytest.fixture
def torn_down(tmp_path):
    yield
    Path("torn-down").touch()

def test_hangs(tmp_path, torn_down):
    write_sweep(tmp_path)
    place = Place(tmp_path, mark={mark!r})
    place.start("seeds.yaml", "--agents", "2", hang="0,1")
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    subprocess.run([sys.executable, "-c", code], start_new_session=True)
    wait_until(lambda: sum("hangs" in run.joinpath("log.txt").read_text() for run in place.runs()) == 2)
    Path("hangs").touch()
    place.processes()[0].wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "arguments", [(), pytest.param(("--numprocesses", "1"), marks=pytest.mark.slow)], ids=["alone", "xdist"]
)
def test_nothing_lives_on(number: signal.Signals, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Agents, their runs, and what is in a session of its own; pytest's fixtures are torn down if it can do so."""
    mark = uuid.uuid4().hex
    (tmp_path / "test_hangs.py").write_text(TEST.format(mark=mark))
    words = ["-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull, *arguments]
    environment = {**os.environ, "AGENT_MARK": mark, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{ROOT}"}
    with (tmp_path / "output.txt").open("w") as output:
        session = subprocess.Popen(
            [sys.executable, *words, f"--rootdir={tmp_path}", "test_hangs.py"],
            cwd=tmp_path, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: (tmp_path / "hangs").exists() or session.poll() is not None)
        assert session.poll() is None, (tmp_path / "output.txt").read_text()
        assert len(marked(mark)) > 5
        session.send_signal(number)
        session.wait(120)
        wait_until(lambda: not marked(mark), 120)
    finally:
        end_marked(mark)
    assert (tmp_path / "torn-down").exists() or (number == signal.SIGKILL and not arguments)

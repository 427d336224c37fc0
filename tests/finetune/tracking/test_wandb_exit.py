"""A command that has done its work ends, whatever W&B's client waits for."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.support import offline

# As W&B's client does: a process of its own, waited for without end when Python ends.
CLIENT = """
import atexit, subprocess, sys, types
core = subprocess.Popen([sys.argv[1], "600"])
wandb = types.ModuleType("wandb")
wandb.teardown = core.wait
sys.modules["wandb"] = wandb
atexit.register(core.wait)
from finetune.tracking import wandb_exit
"""


@pytest.mark.parametrize(
    "lines",
    ["wandb_exit.bound_exit(0.5)", "wandb_exit.end(0.5); print(core.poll())", "wandb_exit.bound_exit(0.5); 1/0"],
)
def test_a_process_of_the_client_that_hangs_is_killed(tmp_path: Path, lines: str) -> None:
    """At the end of the program, or when it is asked to end; the program's exit code stays."""
    core = tmp_path / "wandb-core"
    shutil.copy(shutil.which("sleep") or "sleep", core)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", CLIENT + lines, str(core)], cwd=ROOT, env=offline.environment(ROOT), timeout=100,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ("1/0" in lines), done.stderr
    assert time.monotonic() - begun < 90
    assert done.stdout in ("", "-9\n")

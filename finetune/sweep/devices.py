"""The GPUs and cores of this machine, and their share for each of several runs side by side."""

import contextlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from finetune.system.environment import cores

OOM_SCORE = 500  # of 1000: as if a run took half of the machine's memory more than it does


def threads_per_run(runs: int) -> int:
    """Return the number of threads of each of some runs side by side."""
    return max(1, cores() // runs)


def default_agents() -> int:
    """Return the default number of runs side by side: one for each GPU, at least one."""
    return max(1, len(gpus()))


def gpu_of(slot: int) -> str | None:
    """Return the GPU of a slot, as CUDA_VISIBLE_DEVICES names it, None if there is no choice."""
    names = gpus()
    return names[slot % len(names)] if len(names) > 1 else None


def gpus() -> list[str]:
    """Return the GPUs this process may use, without initialising CUDA."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return _listed_gpus()


def prefer_as_oom_victim() -> None:
    """Make Linux kill this process, rather than its agent, when the machine runs out of memory.

    Any process may raise its own score, and its children inherit it. Does nothing on other systems.
    """
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        score.write_text(str(max(int(score.read_text()), OOM_SCORE)))


@cache
def _listed_gpus() -> list[str]:
    """Return the numbers of the GPUs that nvidia-smi lists."""
    if shutil.which("nvidia-smi") is None:
        return []
    output = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(index) for index, _ in enumerate(line for line in output.splitlines() if line.startswith("GPU "))]

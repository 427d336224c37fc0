"""What this machine has to share out between runs: GPUs and cores."""

import contextlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from finetune.system.environment import cores

OOM_SCORE = 500  # of 1000: as if a run took half of the machine's memory more than it does


def threads(slots: int) -> int:
    """Return how many threads each of `slots` runs side by side gets."""
    return max(1, cores() // slots)


def slots() -> int:
    """Return how many runs go side by side unless something else is asked for: one for each GPU, at least one."""
    return max(1, len(gpus()))


def gpu_of(slot: int) -> str | None:
    """Return the GPU for a slot, as CUDA_VISIBLE_DEVICES names it, or None where there is no choice."""
    found = gpus()
    return found[slot % len(found)] if len(found) > 1 else None


def gpus() -> list[str]:
    """Return the GPUs this process may use, without initialising CUDA."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return _listed()


def prefer_as_oom_victim() -> None:
    """Have Linux, where memory runs out on the whole machine, end this process rather than the agent that started it.

    Any process may raise its own score, and those that it starts, such as loaders, have the same. Elsewhere, nothing.
    """
    score = Path("/proc/self/oom_score_adj")
    with contextlib.suppress(OSError, ValueError):
        score.write_text(str(max(int(score.read_text()), OOM_SCORE)))


@cache
def _listed() -> list[str]:
    """Return the numbers of the GPUs that nvidia-smi lists."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(index) for index, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]

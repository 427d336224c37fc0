"""The GPUs and cores of this machine, and their share for each of several runs side by side."""

import contextlib
import itertools
import logging
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from finetune.system.environment import cores

logger = logging.getLogger(__name__)

SMI_SECONDS = 20.0  # for nvidia-smi, which hangs with some broken drivers
_DEVICE_NAME = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")
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
        # As in CUDA: numbers or beginnings of UUIDs, up to the first that names none (-1, NoDevFiles).
        names = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return list(dict.fromkeys(itertools.takewhile(_DEVICE_NAME.fullmatch, names)))
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
    """Return the GPUs that nvidia-smi lists: their numbers, or the UUIDs of MIG slices, which are devices of their own.

    A driver that hangs counts as none: agents start without it, and a run says what torch sees.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        output = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace", check=False, timeout=SMI_SECONDS
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning(f"nvidia-smi -L: {error}; runs share the GPU that torch takes first")
        return []
    slices = re.findall(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)", output, re.MULTILINE)
    if slices:
        return slices
    return [str(index) for index, _ in enumerate(line for line in output.splitlines() if line.startswith("GPU "))]

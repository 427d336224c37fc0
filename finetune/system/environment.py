"""Where the project and its cache are, the cores of this process, and the environment of child processes."""

import contextlib
import math
import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).parents[2]  # the folder that holds agent.py, finetune/ and analysis/
CGROUPS = Path("/sys/fs/cgroup")


def cache_folder() -> Path:
    """Return the folder for files that can be computed again: $FINETUNE_CACHE, or the user's cache directory."""
    folder = os.environ.get("FINETUNE_CACHE")
    return Path(folder) if folder else platformdirs.user_cache_path("finetune-sweeps")


def child_environment(**variables: str | None) -> dict[str, str]:
    """Return the environment for a child process in Python: it finds the project, whatever its working directory.

    Args:
        variables: are set, unless None.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **{name: text for name, text in variables.items() if text is not None}}


def cores() -> int:
    """Return how many cores this process may use, by its affinity, the quota of its container, and its Slurm job."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    job = os.environ.get("SLURM_CPUS_PER_TASK", "")
    booked = int(job) if job.isdecimal() and int(job) else math.inf
    return max(1, math.ceil(min(available, booked, _cpu_quota(Path("/proc/self/cgroup")))))


def _cpu_quota(membership: Path) -> float:
    """Return the cores that the process's control groups (version 2) allow; infinity without a limit."""
    quota = math.inf
    with contextlib.suppress(OSError, ValueError):  # another system, or control groups of version 1
        group = CGROUPS / membership.read_text(encoding="utf-8").rpartition("0::/")[2].strip()
        for file in (folder / "cpu.max" for folder in (group, *group.parents)):
            limit, _, period = file.read_text(encoding="utf-8").partition(" ") if file.is_file() else ("max", "", "")
            quota = quota if limit == "max" else min(quota, int(limit) / int(period))
    return quota

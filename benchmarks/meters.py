"""Wall time by part of the work, peak memory, and the machine that the numbers come from."""

import os
import platform
import resource
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
import torch

from finetune.run.provenance import git_commit

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "timm", "fastai", "lightning")


class LapTimer:
    """Adds up wall time by part, epoch by epoch: each `lap(part)` takes the seconds since the lap before it.

    GPU kernels still run when Python goes on, so a lap first waits for them.

    Attributes:
        epochs: a row for each finished epoch, with seconds/<part>.
    """

    def __init__(self, device: torch.device) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._device = device
        self.restart()

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize()
        return time.perf_counter()

    def restart(self) -> None:
        """Drop the laps of this epoch; the next one begins now."""
        self._seconds: dict[str, float] = {}
        self._last = self._now()

    def lap(self, part: str) -> None:
        """Add the seconds since the last lap to `part`."""
        now = self._now()
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._last
        self._last = now

    def end_epoch(self, **values: float) -> dict[str, Any]:
        """Add a row with the seconds of this epoch's parts and further values, and return it."""
        seconds = {f"seconds/{part}": seconds for part, seconds in self._seconds.items()}
        self.epochs.append({"epoch": len(self.epochs) + 1, **values, **seconds})
        self.restart()
        return self.epochs[-1]


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory this process has held, in bytes: resident (RSS), and on the GPU where it used one."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    peak = {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak


def describe_machine(threads: int) -> dict[str, Any]:
    """Return CPU, cores, memory, threads of a run, versions and git commit; no names of hosts or people."""
    versions = {package.name.lower(): package.version for package in distributions()}
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{n: versions[n] for n in PACKAGES if n in versions}},
        "git_commit": git_commit(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

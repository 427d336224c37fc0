"""Seconds by part of the work, and the most memory a process has held."""

import resource
import sys
import time

import torch


class Clock:
    """Adds wall time to named parts: each `lap(part)` takes the time since the lap before it.

    On a GPU, kernels that were started still run when Python goes on; so a lap first waits for them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._last = self._now()

    def _now(self) -> float:
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()
        return time.perf_counter()

    def lap(self, part: str) -> None:
        """Add the seconds since the last lap to `part`."""
        now = self._now()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now

    def take(self) -> dict[str, float]:
        """Return the seconds by part, and begin anew."""
        taken, self.seconds = self.seconds, {}
        self._last = self._now()
        return taken


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory this process has held, in bytes: resident (RSS), and on the GPU where it used one."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    peak = {"peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak

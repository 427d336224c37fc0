"""Meters of a run: wall time by phase, energy, and memory."""

import contextlib
import ctypes
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from finetune.rundir.keys import HISTORY_KEYS

Item = TypeVar("Item")
Reading = Callable[[], float | None]  # joules used up to now, None where the counter can't be read

PHASES = tuple(key.removeprefix("seconds/") for key in HISTORY_KEYS if key.startswith("seconds/"))
RAPL = Path("/sys/class/powercap")  # Linux; docs.kernel.org/power/powercap/powercap.html
NO_ENERGY = "not measured"
# mallopt's parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


class PhaseTimer:
    """Adds up wall time by phase, from its creation on. Of nested phases the inner one counts, so they add up.

    Args:
        seconds: phase -> seconds spent earlier.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float, seconds or {})
        self._phases = ["other"]
        self._since = time.perf_counter()

    def _settle(self) -> None:
        now = time.perf_counter()
        self._seconds[self._phases[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time in this block for phase `name`, except for phases inside."""
        self._settle()
        self._phases.append(name)
        try:
            yield
        finally:
            self._settle()
            self._phases.pop()

    def time_iterator(self, items: Iterable[Item], phase: str = "loader") -> Iterator[Item]:
        """Yield the items; the time until each one arrives counts for `phase`."""
        iterator = iter(items)
        while True:
            with self.phase(phase):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def seconds_by_phase(self) -> dict[str, float]:
        """Return phase -> seconds up to now, for all of PHASES."""
        self._settle()
        return {phase: self._seconds[phase] for phase in PHASES}


class EnergyMeter:
    """Adds up the joules that the devices of a run use, from its creation on.

    Args:
        readings: one counter per device. A counter that falls has wrapped around; the energy since the last `poll` is
            then lost, so call it more often than counters wrap (every 40 minutes or so for a CPU under load).
    """

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings
        self._last = [reading() for reading in readings]
        self._joules = 0.0

    def poll(self) -> float | None:
        """Return the joules used since the meter was created, None without counters."""
        for index, reading in enumerate(self._readings):
            now, last = reading(), self._last[index]
            if now is not None and last is not None and now >= last:
                self._joules += now - last
            self._last[index] = now
        return self._joules if self._readings else None


def energy_meter(device: torch.device, rapl: Path = RAPL) -> tuple[EnergyMeter, str]:
    """Return a meter for this device and the machine's CPUs, and a description of what it measures."""
    gpu, cpus = _gpu_counter(device), _cpu_counters(rapl)
    measured = [*(["GPU (NVML)"] if gpu else []), *(["CPU packages (RAPL)"] if cpus else [])]
    return EnergyMeter([*([gpu] if gpu else []), *cpus]), " and ".join(measured) or NO_ENERGY


def _cpu_counters(rapl: Path) -> list[Reading]:
    """Return the counter of each CPU package that this user may read; since Linux 5.10 that takes root."""
    readings: list[Reading] = []
    for zone in sorted(rapl.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") > 1:
            continue  # a part of a package, already included in the package
        reading = partial(_read_joules, zone / "energy_uj")
        if reading() is not None:
            readings.append(reading)
    return readings


def _read_joules(file: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text()) / 1e6
    return None


def _gpu_counter(device: torch.device) -> Reading | None:
    """Return the GPU's energy counter; NVIDIA GPUs have one from Volta on."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        # By UUID: CUDA_VISIBLE_DEVICES renumbers devices, NVML does not.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (pynvml.NVMLError, AttributeError, RuntimeError):
        return None

    def read() -> float | None:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3  # millijoules
        except pynvml.NVMLError:
            return None

    return read


def keep_freed_memory() -> None:
    """Make glibc reuse the memory of freed tensors instead of returning it to the system. Does nothing without glibc.

    By default every tensor above 32 MB is mapped again, and the system clears each of its pages at the first touch: a
    fifth of the time of a training step for small networks on the CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def peak_memory_mb(device: torch.device) -> int:
    """Return the peak memory of this process in MB (1e6 bytes): on the GPU if `device` is one, else in RAM."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes on macOS, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)

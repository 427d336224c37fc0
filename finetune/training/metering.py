"""Where the time of an epoch goes: wall time by what it was spent on, adding up to the whole."""

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

from finetune.models.microbatch import _M_MMAP_MAX, _M_TOP_PAD, _M_TRIM_THRESHOLD
from finetune.rundir.keys import HISTORY_KEYS

Item = TypeVar("Item")

# What an epoch's time goes into. Of nested parts, the inner one counts; so they add up to the epoch.
PHASES = tuple(key.removeprefix("seconds/") for key in HISTORY_KEYS if key.startswith("seconds/"))


class PhaseTimer:
    """Adds up wall time by part, from its making on.

    Args:
        spent: part -> seconds spent already.
    """

    def __init__(self, spent: Mapping[str, float] | None = None) -> None:
        self._spent: defaultdict[str, float] = defaultdict(float, spent or {})
        self._parts = ["other"]
        self._since = time.perf_counter()

    def _settle(self) -> None:
        now = time.perf_counter()
        self._spent[self._parts[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Spend the time in here on `part`, but for what is spent on another part inside."""
        self._settle()
        self._parts.append(part)
        try:
            yield
        finally:
            self._settle()
            self._parts.pop()

    def waiting(self, items: Iterable[Item], part: str = "loader") -> Iterator[Item]:
        """Yield the items; the time until each one comes is spent on `part`."""
        iterator = iter(items)
        while True:
            with self.on(part):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def spent(self) -> dict[str, float]:
        """Return part -> seconds up to now, for all of PARTS."""
        self._settle()
        return {part: self._spent[part] for part in PHASES}


RAPL = Path("/sys/class/powercap")  # Linux; docs.kernel.org/power/powercap/powercap.html


NO_ENERGY = "not measured"


Reading = Callable[[], float | None]  # joules used up to now, or None where that can't be read


class EnergyMeter:
    """Adds up the joules that the devices of a run use, from its making on. `None` where nothing tells.

    Args:
        readings: a counter each device. A counter that falls has wrapped around; what came between is lost, so
            `poll` is to be called more often than that (once in some 40 minutes for a CPU under load).
    """

    def __init__(self, readings: list[Reading]) -> None:
        self._readings = readings
        self._last = [reading() for reading in readings]
        self._joules = 0.0

    def poll(self) -> float | None:
        """Return the joules used since the meter was made."""
        for index, reading in enumerate(self._readings):
            now, last = reading(), self._last[index]
            if now is not None and last is not None and now >= last:
                self._joules += now - last
            self._last[index] = now
        return self._joules if self._readings else None


def energy_meter(device: torch.device, rapl: Path = RAPL) -> tuple[EnergyMeter, str]:
    """Return a meter for this device and the machine's CPUs, and what it measures, in words."""
    gpu, cpus = _gpu(device), _packages(rapl)
    told = [*(["GPU (NVML)"] if gpu else []), *(["CPU packages (RAPL)"] if cpus else [])]
    return EnergyMeter([*([gpu] if gpu else []), *cpus]), " and ".join(told) or NO_ENERGY


def _packages(rapl: Path) -> list[Reading]:
    """Return a reading for each CPU package whose counter may be read; since Linux 5.10 that takes root."""
    readings: list[Reading] = []
    for zone in sorted(rapl.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") > 1:
            continue  # a part of a package, which counts it already
        reading = partial(_joules, zone / "energy_uj")
        if reading() is not None:
            readings.append(reading)
    return readings


def _joules(file: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text()) / 1e6
    return None


def _gpu(device: torch.device) -> Reading | None:
    """Return a reading of the GPU's counter, which NVIDIA's have from Volta on."""
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        # By its UUID: CUDA_VISIBLE_DEVICES gives devices other numbers than NVML does.
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
    """Have glibc keep the memory of freed tensors for the next ones, instead of giving it back to the system.

    By default every tensor of more than 32 MB is mapped anew, and the system clears each of its pages at the first
    touch: a fifth of a training step's time for small networks on the CPU. Elsewhere than on Linux with glibc, nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 64 * 2**20)


def peak_memory_mb(device: torch.device) -> int:
    """Return the most memory that this process has had, in MB (1e6 bytes): of the GPU if it computes there."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes there, KiB on Linux
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)

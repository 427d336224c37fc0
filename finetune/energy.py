"""Energy, where the machine tells it: GPUs by NVML, CPU packages by RAPL.

Both count all that the device does, other processes included: two runs side by side on one device share its energy,
and each of them is told all of it.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")  # Linux; docs.kernel.org/power/powercap/powercap.html
NOT_MEASURED = "not measured"
Reading = Callable[[], float | None]  # joules used up to now, or None where that can't be read


class Meter:
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


def meter(device: torch.device, rapl: Path = RAPL) -> tuple[Meter, str]:
    """Return a meter for this device and the machine's CPUs, and what it measures, in words."""
    gpu, cpus = _gpu(device), _packages(rapl)
    told = [*(["GPU (NVML)"] if gpu else []), *(["CPU packages (RAPL)"] if cpus else [])]
    return Meter([*([gpu] if gpu else []), *cpus]), " and ".join(told) or NOT_MEASURED


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

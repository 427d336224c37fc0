"""How fast the machine is: measured in processes side by side, kept for a day."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.errors import UserError
from finetune.pretrained import preprocessing_of
from finetune.sweep.forecast import probe, probe_pool
from finetune.sweep.forecast.probe import ProbeRequest
from finetune.system import environment
from finetune.system.environment import cache_folder
from tests.sweep.forecast.test_model import SPEED

JSON = json.dumps(dataclasses.asdict(SPEED))


@pytest.fixture
def probe_request(pictures: Path) -> ProbeRequest:
    """A small network, and the shares of head, partial and full."""
    images = tuple(map(str, sorted(pictures.glob("train/*/*.png"))[:3]))
    settings = preprocessing_of("resnet18", "none", 32)
    return ProbeRequest("resnet18", settings, 8, "fp32", "cpu", "standard", (0, 6, 9), 3, images)


def test_it_measures_every_cut_that_runs_need(probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All costs are there, and what there is none of costs nothing; sizes are those of the network."""
    monkeypatch.setattr(probe, "MIN_STEPS", 1)
    monkeypatch.setattr(probe, "STEP_SECONDS", 0.0)
    speed = probe.measure(probe_request)
    assert speed.device == "cpu"
    for name in probe.BY_CUT:
        assert list(getattr(speed, name)) == [0, 6, 9], name
    assert speed.prefix[0] == 0 < speed.prefix[6] < speed.prefix[9]  # each with the ones before it
    assert all(cost > 0 for costs in (speed.train, speed.evaluate, speed.update) for cost in costs.values())
    assert speed.decode > 0 < speed.load
    assert speed.image_bytes == 3 * 37 * 46  # 40 x 32 pixels at a short side of 37: 32 x 256 / 224


def test_a_gpu_too_small_for_the_batch_is_measured_with_less(
    probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run goes on with smaller pieces, too."""
    sizes = []

    def training(model: Any, batch: torch.Tensor, *_: Any) -> dict[str, Any]:  # noqa: ARG001
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"train": {}, "update": {}}

    monkeypatch.setattr(probe, "_measure_training", training)
    monkeypatch.setattr(probe, "MIN_STEPS", 1)
    monkeypatch.setattr(probe, "STEP_SECONDS", 0.0)
    probe.measure(probe_request)
    assert sizes == [8, 4, 2]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does nothing else, whatever other tests run beside this one."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


def test_what_a_busy_machine_measures_is_used_once(
    probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a warning: a later forecast would be wrong by as much as the machine was busy."""
    monkeypatch.setattr(probe_pool, "_measure_side_by_side", lambda *_: JSON)
    monkeypatch.setattr(os, "getloadavg", lambda: (float(environment.cores()), 0.0, 0.0))
    assert probe_pool.run_probes(probe_request, 1) == SPEED
    assert "busy with other work" in capsys.readouterr().out
    assert not (cache_folder() / "probes").exists()


def test_numbers_travel_as_json(probe_request: ProbeRequest) -> None:
    """Both ways."""
    assert (
        probe.request_from_json(json.dumps(dataclasses.asdict(probe_request))).preprocessing
        == probe_request.preprocessing
    )
    assert probe.result_from_json(JSON) == SPEED


@pytest.mark.slow
def test_as_many_probes_run_at_once_as_runs_will(
    probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes of their own; the result is kept, for these agents and this network."""
    starts: list[int] = []
    true = probe_pool._start_probe

    def start(request: ProbeRequest, slot: int, threads: int) -> Any:
        starts.append(slot)
        return true(request, slot, threads)

    monkeypatch.setattr(probe_pool, "_start_probe", start)
    speed = probe_pool.run_probes(probe_request, 2)
    assert starts == [0, 1]
    assert list(speed.train) == [0, 6, 9]
    assert "resnet18, 2 at once" in capsys.readouterr().out
    assert probe_pool.run_probes(probe_request, 2) == speed
    assert (starts, capsys.readouterr().out) == ([0, 1], "")


def test_what_was_measured_is_kept_for_an_hour(probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is measured anew, and so it is for other agents, another batch, and where the file is damaged."""
    measured: list[tuple[int, int]] = []

    def measure(request: ProbeRequest, agents: int) -> str:
        measured.append((request.batch_size, agents))
        return JSON

    def assert_measured(probe_request: ProbeRequest = probe_request, agents: int = 1) -> None:
        assert probe_pool.run_probes(probe_request, agents) == SPEED

    monkeypatch.setattr(probe_pool, "_measure_side_by_side", measure)
    assert_measured()
    assert_measured()
    assert measured == [(8, 1)]
    assert_measured(agents=2)
    assert_measured(dataclasses.replace(probe_request, batch_size=16))
    assert measured[1:] == [(8, 2), (16, 1)]
    for file in (cache_folder() / "probes").iterdir():
        os.utime(file, (time.time() - 3601,) * 2)
    assert_measured()
    assert_measured()
    assert measured[3:] == [(8, 1)]
    for file in (cache_folder() / "probes").iterdir():
        file.write_text("{}")
    assert_measured()
    assert measured[4:] == [(8, 1)]


def test_a_probe_that_fails_says_why(
    probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the last line of its errors; the other one is ended, too; nothing is kept."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nif [ -e first ]; then sleep 60; fi\ntouch first\necho broken >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(python))
    begun = time.monotonic()
    with pytest.raises(UserError, match="exit code 3: broken"):
        probe_pool.run_probes(probe_request, 2)
    assert time.monotonic() - begun < 30
    assert not (cache_folder() / "probes").exists()


def test_a_probe_that_takes_too_long_is_ended(
    probe_request: ProbeRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A sweep can do without."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(probe_pool, "LIMIT_SECONDS", 0.2)
    with pytest.raises(UserError, match="more than"):
        probe_pool.run_probes(probe_request, 1)

"""From a sweep file to a forecast: what is probed for which runs, and that a sweep can do without."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.errors import UserError
from finetune.run import preflight
from finetune.rundir import files, keys
from finetune.sweep import sweep_file
from finetune.sweep.forecast import probe_pool, report
from finetune.sweep.forecast.model import START_SECONDS
from finetune.sweep.forecast.probe import ProbeRequest, ProbeResult
from finetune.sweep.forecast.report import SweepForecast
from finetune.sweep.forecast.workload import forecast_sweep
from finetune.sweep.plan import SweepPlan, make_plan
from finetune.system import documents
from tests.sweep.forecast.test_model import SPEED

Probed = list[tuple[ProbeRequest, int]]

# A hand-made machine for ResNet-18: nine blocks, cuts at every third.
CUTS = (0, 3, 6, 9)
RESNET = dataclasses.replace(
    SPEED,
    prefix=dict(zip(CUTS, (0.0, 1.0, 2.0, 3.0), strict=True)),
    **{name: {cut: getattr(SPEED, name)[0] for cut in CUTS} for name in ("train", "update", "evaluate")},
)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Probed:
    """What is probed, in place of probing."""
    requests: Probed = []

    def run_probes(request: ProbeRequest, agents: int) -> ProbeResult:
        requests.append((request, agents))
        return RESNET

    monkeypatch.setattr(probe_pool, "run_probes", run_probes)
    return requests


@pytest.fixture
def plan(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SweepPlan]:
    """Return a function from parameters to the plan of their grid, on three classes of 10 and 4 images."""
    monkeypatch.chdir(pictures.parent)
    fixed = {"data": "pictures", "backbone": "resnet18", "weights": "DEFAULT", "image_px": 224, "epochs": 6}

    def planned(method: str = "grid", keys: dict[str, Any] | None = None, **swept: Any) -> SweepPlan:
        parameters = {name: {"value": value} for name, value in fixed.items()}
        parameters |= {name: value if isinstance(value, dict) else {"values": value} for name, value in swept.items()}
        spec = {"method": method, "parameters": parameters, **(keys or {})}
        Path("my.yaml").write_text(yaml.safe_dump(spec))
        return make_plan(sweep_file.load("my.yaml"), None, preflight.fingerprint_inputs)

    return planned


def expected(sweep_plan: SweepPlan, unknown: int = 0, agents: int = 2) -> SweepForecast | None:
    """Return the forecast of all runs of a plan."""
    return forecast_sweep(sweep_plan, sweep_plan.runs, unknown, agents)


def test_runs_of_one_network_are_probed_once(plan: Callable[..., SweepPlan], probed: Probed) -> None:
    """For all cuts that any of them needs, on images of the data, with as many at once as there are agents."""
    sweep_plan = plan(strategy=["head", "partial", "gradual", "full"], lr=[0.001, 0.01], seed=[0, 1])
    forecast = expected(sweep_plan)
    assert forecast is not None
    assert set(forecast.run_seconds) == {run.id for run in sweep_plan.runs}
    ((request, agents),) = probed
    assert (request.backbone, request.preprocessing.crop_px, request.classes, agents) == ("resnet18", 224, 3, 2)
    assert request.cuts == CUTS
    assert len(request.images) == 8
    assert all(Path(image).is_file() for image in request.images)


def test_runs_at_other_sizes_are_probed_by_themselves(plan: Callable[..., SweepPlan], probed: Probed) -> None:
    """Batches above what a probe takes on the CPU make no difference there."""
    assert expected(plan(strategy=["head", "full"], image_px=[64, 96], batch_size=[16, 32])) is not None
    assert [request.preprocessing.crop_px for request, _ in probed] == [64, 96]


def test_few_runs_are_not_worth_a_probe(plan: Callable[..., SweepPlan], probed: Probed) -> None:
    """Two are soon over; two of which more follow are not."""
    sweep_plan = plan(seed=[0, 1])
    assert expected(sweep_plan) is None
    assert not probed
    assert expected(sweep_plan, unknown=1) is not None


def test_few_pictures_are_not_worth_a_probe(plan: Callable[..., SweepPlan], probed: Probed) -> None:
    """Three runs over 30 images are over before it is."""
    assert expected(plan(seed=[0, 1, 2], image_px=[32])) is None
    assert not probed


@pytest.mark.slow
def test_a_real_probe_comes_to_a_forecast(
    plan: Callable[..., SweepPlan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them side by side; all costs are positive, and a second time nothing is measured."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))  # other tests run beside this one
    sweep_plan = plan(strategy=["head", "gradual", "full"], seed=[0, 1, 2, 3], image_px=[64])
    forecast = expected(sweep_plan)
    assert forecast is not None
    assert all(seconds > 0 for seconds in forecast.run_seconds.values())
    assert max(forecast.run_seconds.values()) < forecast.seconds < sum(forecast.run_seconds.values())
    assert forecast.cache_bytes > 0 < forecast.cache_seconds
    assert "2 at once" in capsys.readouterr().out
    again = expected(sweep_plan)
    assert again is not None
    assert dataclasses.replace(again, free_bytes=0) == dataclasses.replace(
        forecast, free_bytes=0
    )  # others write to this disk
    assert capsys.readouterr().out == ""


def test_a_sweep_can_do_without_a_forecast(
    plan: Callable[..., SweepPlan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong is told in a line."""

    def fail(*_: Any) -> ProbeResult:
        raise UserError("measuring ended with exit code 3: broken")

    sweep_plan = plan(seed=[0, 1, 2])
    monkeypatch.setattr(probe_pool, "run_probes", fail)
    assert expected(sweep_plan) is None
    assert capsys.readouterr().out == "no forecast: measuring ended with exit code 3: broken\n"
    monkeypatch.setattr(probe_pool, "run_probes", lambda *_: RESNET)
    monkeypatch.setenv("FINETUNE_CACHE_GB", "many")
    assert expected(sweep_plan) is None
    assert "no forecast: FINETUNE_CACHE_GB" in capsys.readouterr().out


def test_epochs_that_are_done_are_not_forecast(plan: Callable[..., SweepPlan], probed: Probed) -> None:
    """A run that was interrupted goes on from there."""
    sweep_plan = plan(strategy=["full"], seed=[0, 1, 2])
    sweep_plan.runs[0].directory.mkdir(parents=True)
    files.write_history(sweep_plan.runs[0].directory, [{"epoch": epoch} for epoch in (1, 2)])
    forecast = expected(sweep_plan, agents=1)
    assert forecast is not None
    assert probed
    first, _, third = forecast.run_seconds.values()
    assert 0 < first < third


@pytest.mark.parametrize(("agents", "is_known"), [(2, True), (1, False)])
def test_epochs_take_what_those_of_finished_runs_took(
    plan: Callable[..., SweepPlan], probed: Probed, agents: int, is_known: bool
) -> None:
    """Of the same strategy, without filling caches; but not if fewer or more runs went side by side."""
    sweep_plan = plan(strategy=["head", "full"], seed=[0, 1, 2])
    first = expected(sweep_plan, agents=2)
    assert first is not None
    assert probed
    sweep_plan.sweep.folder.mkdir(parents=True)
    report.store(sweep_plan.sweep.folder, first)
    full = [run for run in sweep_plan.runs if run.config.strategy == "full"]
    full[0].directory.mkdir(parents=True)
    summary = {"state": "finished", "train_seconds": 70.0, "cache_seconds": 10.0, "epochs": 6}
    documents.write_json(full[0].directory / keys.SUMMARY, summary)
    forecast = expected(sweep_plan, agents=agents)
    assert forecast is not None
    assert (forecast.run_seconds[full[1].id] == pytest.approx(START_SECONDS + 60.0)) == is_known
    assert forecast.strategies["head"].seconds > 0


def test_runs_that_a_search_has_yet_to_choose_are_drawn(plan: Callable[..., SweepPlan], probed: Probed) -> None:
    """From all over its space."""
    metric = {"name": "best/val_accuracy", "goal": "maximize"}
    keys = {"metric": metric, "run_cap": 20, "early_terminate": {"type": "hyperband", "min_iter": 1}}
    sweep_plan = plan("bayes", keys, strategy=["head", "full"], lr={"min": 0.001, "max": 0.01})
    assert sweep_plan.runs == []
    forecast = expected(sweep_plan, unknown=20)
    assert forecast is not None
    assert probed[0][0].cuts == (0, 9)
    assert (forecast.runs, forecast.unknown, dict(forecast.run_seconds)) == (20, 20, {})
    assert set(forecast.strategies) == {"head", "full"}
    assert sum(share.runs for share in forecast.strategies.values()) == 20
    assert forecast.most

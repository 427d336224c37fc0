"""The largest stage is tried before the first epoch, and the run is the same without that, to the bit."""

from pathlib import Path

import pytest
import torch

from finetune.errors import TrainingError
from finetune.resolve import resolve
from finetune.run.build import RunComponents, build_components
from finetune.run.checkpoint import load_checkpoint
from finetune.run.memory_check import UnfreezeStage, check_largest_stage_fits, largest_stage
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.training.state import rng_states
from tests.support.logs import each_log_line
from tests.support.small_runs import limit_memory, small

GROWS = {"strategy": "gradual", "backbone": "shufflenet_v2_x0_5", "unfreeze": "[[0, 0], [1, 1]]", "epochs": 2}


def components_of(images: Path, **values: object) -> RunComponents:
    return build_components(resolve(small(images, **values)), "run", ())


@pytest.mark.parametrize(
    ("values", "stage"),
    [
        (GROWS, UnfreezeStage(1, 0, 24)),
        ({"strategy": "head", "backbone": "shufflenet_v2_x0_5"}, UnfreezeStage(0, 19, 24)),
        ({"strategy": "full", "backbone": "shufflenet_v2_x0_5"}, UnfreezeStage(0, 0, 24)),
        ({"strategy": "full", "backbone": "shufflenet_v2_x0_5", "start_px": 16}, UnfreezeStage(2, 0, 24)),
    ],
)
def test_the_largest_stage_is_the_last(values: dict[str, object], stage: UnfreezeStage, images: Path) -> None:
    """Of the trainable share, and of the images' size."""
    components = components_of(images, **values)
    found = largest_stage(components)
    assert (found.epoch, found.side) == (stage.epoch, stage.side)
    assert found.cut == (len(components.model.blocks) if values["strategy"] == "head" else 0)


def test_nothing_of_a_run_is_changed(images: Path) -> None:
    """Weights, batch-norm's statistics, modes, the optimiser's state and random streams are what they were."""
    components = components_of(images, **GROWS)
    check_largest_stage_fits(components, 0)  # modes are those of the first epoch from here on
    before = {name: value.clone() for name, value in components.model.state_dict().items()}
    flags = [(module.training, [p.requires_grad for p in module.parameters()]) for module in components.model.modules()]
    stream = rng_states(components.settings.device)["cpu"].clone()
    lines: list[str] = []
    with each_log_line(lines.append):
        assert check_largest_stage_fits(components, 0) == (1, None)
    assert lines[0].startswith("memory: the largest stage, from epoch 2 on, needs ")
    after = components.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert flags == [(m.training, [p.requires_grad for p in m.parameters()]) for m in components.model.modules()]
    assert torch.equal(stream, rng_states(components.settings.device)["cpu"])
    assert not components.optimizer.state
    assert all(parameter.grad is None for parameter in components.model.parameters())


def test_a_run_is_the_same_without_it(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights, and every row of its history but the clock's."""
    run(small(images, **GROWS), tmp_path / "with")
    monkeypatch.setattr("finetune.run.run.check_largest_stage_fits", lambda *_: (0, None))
    run(small(images, **GROWS), tmp_path / "without")
    one, other = (load_checkpoint(tmp_path / name / keys.LAST)["model"] for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [
        [{k: v for k, v in row.items() if "second" not in k} for row in files.read_history(tmp_path / name)[0]]
        for name in ("with", "without")
    ]
    assert rows[0] == rows[1]


def test_what_does_not_fit_later_is_known_before_the_first_epoch(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller pieces for the stage that needs them, and not before; where none fits, the run ends at once."""
    limit_memory(monkeypatch, max_images=5)
    lines: list[str] = []
    with each_log_line(lines.append):
        run(small(images, **GROWS), tmp_path / "fits")
    first = next(index for index, line in enumerate(lines) if line.startswith("epoch 1/"))
    tried = next(index for index, line in enumerate(lines) if "needs" in line and "in micro-batches of 4" in line)
    assert tried < first
    limit_memory(monkeypatch, max_images=1)
    with pytest.raises(TrainingError, match=r"at epoch 2, where 100% .*tried before the first\), even with 2 "):
        run(small(images, **GROWS), tmp_path / "never")
    assert files.read_history(tmp_path / "never")[0] == []

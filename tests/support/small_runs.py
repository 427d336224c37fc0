"""Real runs of a small network on small images: their configs, ways to disturb them, and their comparison."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.config import Config, parse_config
from finetune.models.classifier import Classifier, build_classifier
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents

SMALL: dict[str, Any] = {
    "backbone": "squeezenet1_1",
    "weights": "none",
    "image_px": 24,
    "batch_size": 8,
    "epochs": 4,
    "lr": 3e-3,
    "device": "cpu",
}
KILLED_FIELDS: dict[str, Any] = {"strategy": "lpft", "epochs": 3}  # of `leave_killed`


def small(images: Path, **values: Any) -> Config:
    """Return the config of a run on this folder of images."""
    return parse_config({**SMALL, "data": str(images), **values}, "a test")


def flags(images: Path, **values: Any) -> list[str]:
    """Return the command-line flags of a run of one epoch on this folder of images."""
    fields = {**SMALL, "data": str(images), "epochs": 1, **values}
    return [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value))]


class Killed(BaseException):
    """Ends a run in the middle, as SIGKILL would: nothing is saved."""


def kill_after(epoch: float) -> Callable[[dict[str, Any]], None]:
    """Return an `on_progress` that kills the run once more than `epoch` epochs are done."""

    def on_progress(progress: dict[str, Any]) -> None:
        if progress["phase"] == "train" and progress["epoch"] > epoch:
            raise Killed

    return on_progress


def leave_killed(images: Path, folder: Path) -> None:
    """Leave a run killed in its third epoch, so that last.pt, previous.pt and best.pt are there."""
    with pytest.raises(Killed):
        run(small(images, **KILLED_FIELDS), folder, on_progress=kill_after(2))


def limit_memory(monkeypatch: pytest.MonkeyPatch, max_images: int) -> None:
    """Let memory run out where the backbone trains on more than `max_images` images at a time."""

    def build(*args: Any) -> Classifier:
        model = build_classifier(*args)

        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if model.blocks[-1].training and len(inputs[0]) > max_images:
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.blocks[-1].register_forward_pre_hook(hook)
        return model

    monkeypatch.setattr("finetune.run.build.build_classifier", build)


def after(calls: int) -> Callable[[], bool]:
    """Return an `interrupted` that returns true from its call number `calls` on."""
    counter = itertools.count(1)
    return lambda: next(counter) >= calls


def assert_same_run(one: Path, other: Path, checkpoints: Iterable[str] = (keys.BEST, keys.LAST)) -> None:
    """Assert that weights, history, predictions and summary are equal, bit for bit, except for times and memory."""
    for name in checkpoints:
        weights, others = (load_checkpoint(folder / name)["model"] for folder in (one, other))
        assert all(torch.equal(weights[key], others[key]) for key in weights)
    timeless = [
        [
            {k: v for k, v in row.items() if "second" not in k and "memory" not in k}
            for row in (*files.read_history(folder)[0], summary)
        ]
        for folder in (one, other)
        for summary in [documents.read_json(folder / keys.SUMMARY) or {}]
    ]
    assert timeless[0] == timeless[1]
    assert (one / keys.PREDICTIONS).read_bytes() == (other / keys.PREDICTIONS).read_bytes()

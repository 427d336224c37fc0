"""Real runs of a small network on small pictures: how they are asked for, interrupted and compared."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.config import Config, parse_config
from finetune.models.classifier import Classifier, build_classifier
from finetune.run.checkpoint import load_checkpoint
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


def small(pictures: Path, **values: Any) -> Config:
    """Return the config of a run on this folder of pictures."""
    return parse_config({**SMALL, "data": str(pictures), **values}, "a test")


def flags(pictures: Path, **values: Any) -> list[str]:
    """Return the same as a command's flags, for one epoch."""
    fields = {**SMALL, "data": str(pictures), "epochs": 1, **values}
    return [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def least_memory(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Have memory run out wherever the backbone trains on more than so many pictures at a time."""

    def build(*given: Any) -> Classifier:
        model = build_classifier(*given)

        def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if model.blocks[-1].training and len(inputs[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.blocks[-1].register_forward_pre_hook(hook)
        return model

    monkeypatch.setattr("finetune.run.build.build_classifier", build)


def after(asks: int) -> Callable[[], bool]:
    """Return `interrupted`, true from the given time on that it is asked."""
    counter = itertools.count(1)
    return lambda: next(counter) >= asks


def assert_same_run(one: Path, other: Path, checkpoints: Iterable[str] = (keys.BEST, keys.LAST)) -> None:
    """Weights, history, predictions and summary are equal, bitwise, times left out."""
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

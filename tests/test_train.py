"""The loop's decisions: which epoch is best, when to stop, and what to say when the loss is lost."""

import pytest
import torch

from finetune.errors import TrainingError
from finetune.model import build_classifier, build_network
from finetune.strategies import param_groups
from finetune.train import Loop, best_row, fit, should_stop

CPU = torch.device("cpu")


def rows(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val/accuracy": accuracy, "val/loss": 1.0}
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]


def test_best_is_the_highest_val_accuracy_then_the_lower_loss_then_the_earlier_epoch() -> None:
    """Ties are broken the same way every time."""
    assert best_row(rows(0.5, 0.7, 0.7, 0.6))["epoch"] == 2
    history = rows(0.7, 0.7)
    history[1]["val/loss"] = 0.9
    assert best_row(history)["epoch"] == 2


def test_patience_counts_from_the_last_unfreeze() -> None:
    """A schedule is never ended before its last step, however long val stands still before it."""
    stuck = rows(0.5, 0.4, 0.4, 0.4, 0.4)
    assert should_stop(stuck, [(0, 1.0)], patience=4)
    assert not should_stop(stuck, [(0, 1.0)], patience=5)
    assert not should_stop(stuck, [(0, 0.0), (4, 1.0)], patience=2)
    assert should_stop(rows(0.5, *[0.4] * 5), [(0, 0.0), (4, 1.0)], patience=2)
    assert not should_stop(stuck, [(0, 1.0)], patience=None)


class _OneBatch:
    """A loader and sampler of the same two pictures in every epoch."""

    epoch = 0

    def __len__(self) -> int:
        return 1

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield torch.full((2, 3, 32, 32), float("nan")), torch.tensor([0, 1])


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_setting() -> None:
    """Epoch, step, rates and what to lower."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    optimizer = torch.optim.AdamW(param_groups(model, 0.1, 0.1, 1.0, 0.0))
    loop = Loop([(0, 1.0)], 3, lambda block, step: 1.0, 0.0, None, CPU, None, 0)  # noqa: ARG005
    data = _OneBatch()
    with pytest.raises(TrainingError, match=r"step 1 of epoch 1 .*Lower lr or backbone_lr"):
        fit(loop, model, optimizer, (data, data), data, [], lambda history: False, lambda phase, epoch: None)  # noqa: ARG005

"""The optimiser's state is there before the first gradients, and changes nothing."""

import pytest
import torch
from torch import nn

from finetune.errors import TrainingError
from finetune.training.optimizer import adamw, allocate_state


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=torch.channels_last)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3, 4, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def test_steps_are_those_that_torch_makes_by_itself() -> None:
    """Weights and state, to the bit and key for key: whatever a newer torch keeps must be reserved, too."""
    ours, theirs = network(), network()
    for model, ahead in ((ours, True), (theirs, False)):
        model[0].requires_grad_(False)
        optimizer = adamw([{"params": list(model.parameters()), "lr": 0.01, "weight_decay": 0.1}])
        for frozen in (True, False):
            model[0].requires_grad_(not frozen)
            if ahead:
                allocate_state(optimizer, "here")
            train(model, optimizer, 3)
        if ahead:
            kept = optimizer.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    state, other = kept["state"], optimizer.state_dict()["state"]
    assert [list(state[key]) for key in state] == [list(other[key]) for key in other]
    for key, values in state.items():
        for name, value in values.items():
            assert torch.equal(value, other[key][name])
            assert (value.dtype, value.stride()) == (other[key][name].dtype, other[key][name].stride())


def test_what_is_frozen_has_none_and_what_is_there_stays() -> None:
    """As much is kept as trains; a resumed run goes on with what it had."""
    model = network()
    model[0].requires_grad_(False)
    optimizer = adamw([{"params": list(model.parameters()), "lr": 0.01}])
    allocate_state(optimizer, "here")
    assert set(optimizer.state) == set(model[2].parameters())
    train(model, optimizer, 1)
    before = optimizer.state[model[2].weight]["exp_avg"].clone()
    allocate_state(optimizer, "here")
    assert torch.equal(optimizer.state[model[2].weight]["exp_avg"], before)
    assert before.any()


def test_want_of_memory_is_told_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With where, how much, and what to do; other errors come through as they are."""
    model = network()
    optimizer = adamw([{"params": list(model.parameters()), "lr": 0.01}])

    def none_left(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("finetune.training.optimizer.torch.zeros_like", none_left)
    with pytest.raises(
        TrainingError, match=r"out of memory at epoch 3: AdamW needs 1 kB for .*\. Choose a smaller backbone"
    ):
        allocate_state(optimizer, "at epoch 3")
    monkeypatch.setattr("finetune.training.optimizer.torch.zeros_like", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        allocate_state(optimizer, "at epoch 3")

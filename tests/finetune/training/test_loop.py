"""The loop's decisions: when to stop, and what to say when the loss is lost."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from finetune.errors import DivergedError, RunInterrupted
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.device import autocast_of
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.unfreezing import UnfreezeSchedule
from finetune.training.batch_source import Batch, BatchSource, BatchStream
from finetune.training.loop import TrainCallbacks, Trainer, TrainSettings, should_stop
from finetune.training.metering import PHASES, PhaseTimer
from finetune.training.optimizer import adamw, param_groups
from finetune.training.state import TrainState
from tests.support.logs import each_log_line

CPU = torch.device("cpu")


def rows(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val/accuracy": accuracy, "val/loss": 1.0}
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]


def test_patience_counts_from_the_last_unfreeze() -> None:
    """A schedule is never ended before its last step, however long val stands still before it."""
    stuck = rows(0.5, 0.4, 0.4, 0.4, 0.4)
    assert should_stop(stuck, UnfreezeSchedule([(0, 1.0)], 9), patience=4)
    assert not should_stop(stuck, UnfreezeSchedule([(0, 1.0)], 9), patience=5)
    assert not should_stop(stuck, UnfreezeSchedule([(0, 0.0), (4, 1.0)], 9), patience=2)
    assert should_stop(rows(0.5, *[0.4] * 5), UnfreezeSchedule([(0, 0.0), (4, 1.0)], 9), patience=2)
    assert not should_stop(stuck, UnfreezeSchedule([(0, 1.0)], 9), patience=None)


class _Source(BatchSource):
    """The same batches in every epoch, and others for val."""

    def __init__(self, train: list[Batch], val: list[Batch] | None = None) -> None:
        self._train, self._val = train, val or train

    def train(self, epoch: int, first: int, cut: int, timer: PhaseTimer) -> BatchStream:
        del epoch, timer
        return BatchStream(0, cut, len(self._train), self._train[first:])

    def evaluation(self, split: str, cut: int, timer: PhaseTimer) -> BatchStream:
        del split, timer
        return BatchStream(0, cut, len(self._val), self._val)


def fit(
    settings: TrainSettings,
    model: Classifier,
    optimizer: Any,
    source: _Source,
    state: TrainState,
    callbacks: TrainCallbacks,
) -> None:
    Trainer(settings, model, FrozenPrefix(model), optimizer, source, state, callbacks).fit()


def train_settings(epochs: int = 3, **values: Any) -> TrainSettings:
    all_blocks = UnfreezeSchedule([(0, 1.0)], 9)
    return TrainSettings(all_blocks, epochs, lambda block, step: 1.0, 0.0, None, CPU, None, 0, **values)  # noqa: ARG005


def make_callbacks(**values: Any) -> TrainCallbacks:
    silent: dict[str, Any] = {
        "on_epoch": lambda: False,
        "on_progress": lambda phase, epoch: None,  # noqa: ARG005
        "interrupted": lambda: False,
    }
    return TrainCallbacks(**{**silent, **values})


def make_batches(size: int) -> list[Batch]:
    torch.manual_seed(1)
    return [(torch.randn(size, 3, 32, 32), torch.arange(size) % 2) for _ in range(3)]


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_setting() -> None:
    """Epoch, step, rates and what to lower."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    optimizer = torch.optim.AdamW(param_groups(model, 0.1, 0.1, 1.0, 0.0))
    source = _Source([(torch.full((2, 3, 32, 32), float("nan")), torch.tensor([0, 1]))])
    with pytest.raises(DivergedError, match=r"step 1 of epoch 1 .*Lower lr or backbone_lr"):
        fit(train_settings(), model, optimizer, source, TrainState(), make_callbacks())


def test_weights_that_are_lost_in_the_last_step_reach_no_checkpoint() -> None:
    """Its own loss was finite; neither an interruption right after it nor the end of the epoch saves them."""
    for interrupted in (False, True):
        model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
        optimizer = torch.optim.SGD(param_groups(model, 1e-3, 1e-3, 1.0, 0.0))
        source, saved = _Source(make_batches(4)[:1]), []  # type: ignore[var-annotated]
        model.head[1].weight.register_hook(lambda gradient: gradient * float("inf"))
        told = make_callbacks(on_epoch=lambda: saved.append(1), interrupted=lambda now=interrupted: now)  # type: ignore[misc]  # noqa: B023
        with pytest.raises(DivergedError, match=r"head\.1\.weight holds .* not finite in epoch 1 .*Lower lr"):
            fit(train_settings(1), model, optimizer, source, TrainState(), told)
        assert saved == []


def test_a_val_that_gives_no_numbers_ends_the_run() -> None:
    """Where weights and training loss are finite, but batch-norm's statistics make val overflow, say."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    optimizer = torch.optim.SGD(param_groups(model, 1e-3, 1e-3, 1.0, 0.0))
    bad = [(torch.full((2, 3, 32, 32), float("inf")), torch.tensor([0, 1]))]
    with pytest.raises(DivergedError, match=r"the loss on val is nan after epoch 1 \(rates: .*Lower lr"):
        fit(train_settings(1), model, optimizer, _Source(make_batches(4), bad), TrainState(), make_callbacks())


def trained(
    most: int | None, backbone: str, size: int, weights: list[float] | None = None, lr: float = 0.1, **values: Any
) -> tuple[dict[str, Tensor], TrainState, list[int]]:
    """Return weights, state and the sizes of all training passes after an epoch where `most` images fit."""
    torch.manual_seed(0)
    model = build_classifier(build_network(backbone, 32), 2, 0.0)
    passes: list[int] = []

    def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if model.training:
            passes.append(len(inputs[0]))
            if most is not None and len(inputs[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

    model.blocks[0].register_forward_pre_hook(hook)
    # Plain descent, so that weights differ by as much as gradients do.
    optimizer = torch.optim.SGD(param_groups(model, lr, lr, 1.0, 0.0))
    source = _Source(make_batches(size))
    state = TrainState()
    settings = train_settings(1, class_weights=None if weights is None else torch.tensor(weights))
    fit(settings, model, optimizer, source, state, make_callbacks(**values))
    return dict(model.state_dict()), state, passes


@pytest.mark.parametrize("weights", [None, [0.25, 3.0]])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(weights: list[float] | None) -> None:
    """Weights after three steps, loss and accuracy are the same, though no two pieces are of one size or class."""
    whole, state, passes = trained(None, "squeezenet1_1", 7, weights)
    assert (passes, state.micro_batch) == ([7, 7, 7], None)
    lines: list[str] = []
    with each_log_line(lines.append):
        pieces, again, passes = trained(2, "squeezenet1_1", 7, weights)
    assert passes == [7, 4, *[2, 2, 2, 1] * 3]
    assert again.micro_batch == 2
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-4, atol=1e-6)
    for key in ("train/loss", "train/accuracy", "val/loss"):
        assert again.history[0][key] == pytest.approx(state.history[0][key], rel=1e-4)
    assert lines == [
        "out of memory at epoch 1, step 1, where 100% of the backbone trains: "
        "continues with 2 micro-batches of 4, the same batch of 7",
        "out of memory at epoch 1, step 1, where 100% of the backbone trains: "
        "continues with 4 micro-batches of 2, the same batch of 7",
    ]


def test_batch_norm_is_never_given_one_image_and_the_log_says_what_it_sees() -> None:
    """Of five images, two and three."""
    lines: list[str] = []
    with each_log_line(lines.append):
        _, state, passes = trained(3, "shufflenet_v2_x0_5", 5, lr=0.01)
    assert passes == [5, *[3, 2] * 3]
    assert state.micro_batch == 3
    assert lines[0].endswith("; batch-norm that trains sees one micro-batch at a time")


@pytest.mark.parametrize("backbone", ["squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_step_that_is_repeated_is_as_if_it_had_not_been_tried(backbone: str) -> None:
    """Dropout in the second try is that of the first, and batch-norm has not seen the batch twice: weights and
    statistics are those of a run that starts with micro-batches."""

    def run(most: int | None, micro_batch: int | None) -> Tensor:
        torch.manual_seed(0)
        model = build_classifier(build_network(backbone, 32), 2, 0.5)

        def hook(_: nn.Module, __: tuple[Tensor], logits: Tensor) -> None:  # after dropout has drawn
            if model.training and most is not None and len(logits) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.head.register_forward_hook(hook)
        optimizer = torch.optim.SGD(param_groups(model, 0.1, 0.1, 1.0, 0.0))
        source = _Source(make_batches(8))
        fit(train_settings(1), model, optimizer, source, TrainState(micro_batch=micro_batch), make_callbacks())
        return torch.cat([value.flatten() for value in model.state_dict().values()])

    assert torch.equal(run(4, None), run(None, 4))


def test_what_adamw_keeps_is_there_before_the_first_gradients() -> None:
    """Where memory runs out after that, nothing has changed yet, and smaller pieces can help."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    optimizer = adamw(param_groups(model, 0.1, 0.1, 1.0, 0.0))
    seen: list[int] = []
    model.head.register_forward_pre_hook(lambda *_: seen.append(len(optimizer.state)))
    fit(train_settings(1), model, optimizer, _Source(make_batches(2)), TrainState(), make_callbacks())
    assert seen[0] == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("supported", "emulated", "chosen"), [(True, True, torch.bfloat16), (False, True, None), (False, False, None)]
)
def test_bfloat16_is_chosen_where_a_gpu_computes_in_it_and_not_where_it_pretends_to(
    supported: bool, emulated: bool, chosen: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older ones take it and compute in float32; who asks for it gets it."""

    def answer(including_emulation: bool = True) -> bool:
        return supported or (including_emulation and emulated)

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert autocast_of("auto", torch.device("cuda")) is chosen
    assert autocast_of("bf16", torch.device("cuda")) is torch.bfloat16
    assert autocast_of("auto", torch.device("cpu")) is None


def test_seconds_of_an_interrupted_epoch_are_the_sum_of_its_parts() -> None:
    """Interrupted after each of three slow steps, and after val, an epoch is as long as all of them."""
    model = build_classifier(build_network("squeezenet1_1", 32), 2, 0.0)
    optimizer = torch.optim.AdamW(param_groups(model, 0.1, 0.1, 1.0, 0.0))
    source = _Source(make_batches(2))
    state = TrainState()
    slow = 0.15

    def on_progress(phase: str, epoch: float) -> None:
        del phase, epoch
        time.sleep(slow)

    stopping = make_callbacks(on_progress=on_progress, interrupted=lambda: True)
    for steps in (1, 2, 3, 3):
        with pytest.raises(RunInterrupted):
            fit(train_settings(1), model, optimizer, source, state, stopping)
        assert state.epoch.steps == steps
    fit(train_settings(1), model, optimizer, source, state, make_callbacks())
    row = state.history[0]
    assert row["seconds/other"] > 3 * slow
    assert row["seconds/val"] > slow
    assert row["epoch_seconds"] == pytest.approx(sum(row[f"seconds/{part}"] for part in PHASES))
    assert state.epoch.steps == 0

"""Strategies: what trains when, at which rate, and that frozen means frozen."""

import hashlib

import pytest
import torch
from torch import nn

from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.unfreezing import UnfreezeSchedule, freeze_blocks, trainable_blocks
from finetune.resolve import default_schedule
from finetune.training.lr_schedule import lr_multiplier
from finetune.training.optimizer import param_groups


def digest(module: nn.Module) -> str:
    """Hash parameters and buffers: batch-norm statistics too."""
    content = b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())
    return hashlib.sha256(content).hexdigest()


def small(backbone: str = "resnet18") -> Classifier:
    torch.manual_seed(0)
    return build_classifier(build_network(backbone, 64), 3, 0.5)


def test_shares_become_whole_blocks() -> None:
    """A third of EfficientNetV2-S's 42 blocks is 14, of SqueezeNet's 9 is 3; nothing and everything are exact."""
    assert [trainable_blocks(1 / 3, count) for count in (42, 9)] == [14, 3]
    assert [trainable_blocks(share, 9) for share in (0.0, 1.0, 0.5)] == [0, 9, 5]


def test_gradual_steps_from_the_head_towards_the_input() -> None:
    """Its shares by epoch for a run of 8: head only, a third, two thirds, all."""
    schedule = UnfreezeSchedule(default_schedule("gradual", 8), 9)
    assert [round(schedule.share(epoch), 2) for epoch in range(8)] == [0, 0.33, 0.33, 0.67, 1, 1, 1, 1]
    assert [schedule.cut(epoch) for epoch in range(8)] == [9, 6, 6, 3, 0, 0, 0, 0]
    assert [schedule.trainable(epoch) for epoch in range(8)] == [0, 3, 3, 6, 9, 9, 9, 9]
    assert (schedule.last_step, schedule.final_cut) == (4, 0)
    assert [schedule.first_epoch(block) for block in range(9)] == [4, 4, 4, 3, 3, 3, 1, 1, 1]


def test_blocks_that_a_schedule_leaves_frozen_never_train() -> None:
    """Half of 4 blocks, from the third epoch on."""
    schedule = UnfreezeSchedule([(0, 0.0), (2, 0.5)], 4)
    assert schedule.final_cut == 2
    assert [schedule.first_epoch(block) for block in range(4)] == [None, None, 2, 2]


@pytest.mark.parametrize("backbone", ["resnet18", "squeezenet1_0", "mobilenet_v3_small", "efficientnet_v2_s"])
@pytest.mark.parametrize("share", [0.0, 1 / 3, 1.0])
def test_frozen_blocks_do_not_change_by_a_bit_and_the_others_do(backbone: str, share: float) -> None:
    """After two steps with large rates and decay: hashes of parameters and batch-norm statistics, block by block."""
    model = small(backbone)
    torch.nn.init.normal_(model.head[-1].weight)  # from a zero head no gradient reaches the backbone at first
    optimizer = torch.optim.AdamW(param_groups(model, 0.1, 0.1, 1.0, weight_decay=0.5))
    before = [digest(block) for block in model.blocks]
    for _ in range(2):
        freeze_blocks(model, len(model.blocks) - trainable_blocks(share, len(model.blocks)))
        optimizer.zero_grad()
        model(torch.randn(4, 3, 64, 64)).logsumexp(dim=1).sum().backward()
        optimizer.step()
    changed = [digest(block) != old for block, old in zip(model.blocks, before, strict=True)]
    count = trainable_blocks(share, len(changed))
    assert changed == [False] * (len(changed) - count) + [True] * count


@pytest.mark.parametrize("backbone", ["convnext_tiny", "vit_b_16", "swin_t"])
def test_other_families_freeze_and_unfreeze(backbone: str) -> None:
    """Flags and modes follow the number of frozen blocks, and unfreezing undoes freezing."""
    with torch.device("meta"):
        model = build_classifier(build_network(backbone, 224), 3, 0.0)
    for frozen in (len(model.blocks), 4, 0):
        freeze_blocks(model, frozen)
        for index, block in enumerate(model.blocks):
            assert all(parameter.requires_grad == (index >= frozen) for parameter in block.parameters())
            assert all(module.training == (index >= frozen) for module in block.modules())
        assert all(parameter.requires_grad for parameter in model.head.parameters())


def test_groups_hold_each_parameter_once_with_no_decay_on_flat_ones() -> None:
    """Every parameter is in exactly one group; biases and norms have no weight decay; the head has its own rate."""
    model = small()
    groups = param_groups(model, 0.1, 0.01, 0.5, weight_decay=0.3)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(model.parameters()))
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
    peaks = {group["block"]: group["peak_lr"] for group in groups}
    assert peaks[None] == 0.1
    assert [peaks[block] for block in (8, 7, 6)] == pytest.approx([0.01, 0.005, 0.0025])


def test_head_only_has_no_backbone_groups() -> None:
    """Where no block ever trains the optimiser holds the head alone."""
    assert {group["block"] for group in param_groups(small(), 0.1, None, 1.0, 0.0)} == {None}


def test_rates_rise_again_for_blocks_that_join_later() -> None:
    """A block's rate is 0 until its epoch, then rises over the second warm-up, then follows the common cosine."""
    schedule = UnfreezeSchedule([(0, 0.0), (2, 0.5), (4, 1.0)], 4)
    multiplier = lr_multiplier(schedule, steps_per_epoch=10, epochs=10, warmup_epochs=0, rewarm_epochs=0.5)
    head = [multiplier(None, step) for step in range(100)]
    last, first = ([multiplier(block, step) for step in range(100)] for block in (3, 0))
    assert last[:20] == [0.0] * 20
    assert first[:40] == [0.0] * 40
    assert 0 < last[20] < last[22] < head[22]
    assert last[26:] == head[26:]
    assert first[46:] == head[46:]

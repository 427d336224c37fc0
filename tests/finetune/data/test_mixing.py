"""MixUp and CutMix: what they make of images and labels, in the loss, and in runs."""

import itertools
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from finetune.config import parse_config
from finetune.data.augmentation import mix
from finetune.errors import ConfigError, RunInterrupted
from finetune.resolve import resolve
from finetune.run.run import run
from finetune.rundir import files
from finetune.training import loop, loss
from finetune.training.loss import batch_loss, hard_labels
from tests.support.logs import each_log_line
from tests.support.small_runs import after, assert_same_run, small


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return four images of one value each, 0, 1, 2 and 3, and their labels, the same."""
    values = torch.arange(4.0).view(4, 1, 1, 1)
    return values.expand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last), torch.arange(4)


def test_mixup_blends_neighbours_and_their_labels_by_the_same_share() -> None:
    """Both follow from the seed alone; every share comes, more of them near the ends for a small alpha."""
    images, labels = batch()
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    shares = []
    for seed in range(200):
        mixed, targets = mix(images, labels, 5, mixup=0.5, cutmix=0, seed=seed)
        share = float(targets[1, 1])
        others = torch.tensor([3.0, 0, 1, 2])
        values = share * torch.arange(4.0) + (1 - share) * others
        assert torch.allclose(mixed, values.view(4, 1, 1, 1).expand_as(mixed), atol=1e-6)
        assert torch.allclose(targets.sum(1), torch.ones(4))
        assert torch.allclose((targets * torch.arange(5.0)).sum(1), values, atol=1e-6)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        again = mix(images, labels, 5, mixup=0.5, cutmix=0, seed=seed)
        assert torch.equal(again[0], mixed)
        shares.append(share)
    assert torch.equal(torch.rand(2), expected)
    assert sum(share < 0.1 or share > 0.9 for share in shares) > 200 * 0.3  # Beta(0.5, 0.5): 41% of it
    assert torch.equal(images, batch()[0])


def test_cutmix_pastes_a_rectangle_and_counts_its_area() -> None:
    """Each pixel is of one of the two images; the labels' shares are those of the pixels."""
    images, labels = batch()
    for seed in range(50):
        mixed, targets = mix(images, labels, 4, mixup=0, cutmix=1.0, seed=seed)
        assert set(mixed[1].unique().tolist()) <= {0.0, 1.0}
        assert float((mixed[1] == 1).float().mean()) == pytest.approx(float(targets[1, 1]), abs=1e-6)


def test_with_both_a_batch_gets_either() -> None:
    """With equal chances."""
    images, labels = batch()
    blended = sum(
        bool(len(mix(images, labels, 4, 1.0, 1.0, seed)[0][1].unique()) == 1) for seed in range(200)
    )  # one value: MixUp, or a rectangle of nothing
    assert 70 < blended < 130


def test_the_loss_of_a_mixed_picture_is_the_mean_of_its_labels_losses() -> None:
    """By their shares, each with label smoothing and its class's weight; a whole label is the plain loss."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    one, other = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 0, 1, 1, 1, 0])
    targets = 0.7 * functional.one_hot(one, 3) + 0.3 * functional.one_hot(other, 3)
    for weights in (None, torch.tensor([0.5, 1.0, 4.0])):
        whole = batch_loss(logits, functional.one_hot(one, 3).float(), 0.1, weights)
        assert torch.allclose(whole, batch_loss(logits, one, 0.1, weights))
        expected = 0.7 * batch_loss(logits, one, 0.1, weights) + 0.3 * batch_loss(logits, other, 0.1, weights)
        assert torch.allclose(batch_loss(logits, targets, 0.1, weights), expected)
    assert torch.equal(hard_labels(targets), one)
    assert torch.equal(hard_labels(one), one)


@pytest.mark.parametrize("strategy", ["head", "gradual"])
def test_a_mixed_run_interrupted_again_and_again_is_the_same_run(strategy: str, pictures: Path, tmp_path: Path) -> None:
    """With all of it: levels, erasing, both kinds of mixing, weights by class; nothing frozen is kept of training."""
    asked = {"augment": "strong", "erasing": 0.5, "mixup": 0.4, "cutmix": 1.0, "balance": "weights"}
    config = small(pictures, strategy=strategy, epochs=2, image_px=24, cache="on", **asked)
    run(config, tmp_path / "whole")
    for asks in (1, 3, 2):
        with pytest.raises(RunInterrupted):
            run(config, tmp_path / "cut", interrupted=after(asks))
    run(
        small(pictures, strategy=strategy, epochs=2, image_px=24, loader_workers=2, **asked),
        tmp_path / "cut",
    )
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    plain = small(pictures, strategy=strategy, epochs=2, image_px=24, views=0, **{**asked, "mixup": 0, "cutmix": 0})
    run(plain, tmp_path / "plain")
    losses = [files.read_history(tmp_path / name)[0][0]["train/loss"] for name in ("whole", "plain")]
    assert losses[0] != losses[1]


def test_a_run_erases_and_counts_mixed_pictures_by_their_heavier_label(pictures: Path, tmp_path: Path) -> None:
    """Erasing changes what training sees; colours are learnt from mixed images too, as the accuracy tells."""
    losses = []
    for share in (0.0, 1.0):
        run(small(pictures, strategy="full", epochs=1, erasing=share), tmp_path / str(share))
        losses.append(files.read_history(tmp_path / str(share))[0][0]["train/loss"])
    assert losses[0] != losses[1]
    config = small(pictures, strategy="full", epochs=2, mixup=0.1, dropout=0, backbone="resnet18")
    run(config, tmp_path / "mixed")
    assert files.read_history(tmp_path / "mixed")[0][-1]["train/accuracy"] > 0.8


@pytest.mark.slow
def test_micro_batches_see_what_whole_batches_are_mixed_to(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out changes no result beyond rounding: mixing comes first."""
    config = small(pictures, strategy="head", epochs=1, dropout=0, mixup=1.0, cache="off")
    run(config, tmp_path / "whole")
    steps, original = itertools.count(), loss.batch_loss

    def short_of_memory(*args: object) -> torch.Tensor:
        if next(steps) == 0:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "batch_loss", short_of_memory)
    lines: list[str] = []
    with each_log_line(lines.append):
        run(config, tmp_path / "pieces")
    assert any("micro-batches" in line for line in lines)
    one, other = (files.read_history(tmp_path / name)[0][0] for name in ("whole", "pieces"))
    assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)
    assert one["val/loss"] == pytest.approx(other["val/loss"], rel=1e-4)


def test_views_of_mixed_pictures_are_not_kept() -> None:
    """They are new in each step; who asks for both is told, as for alphas that would do nothing."""
    assert resolve(parse_config({"strategy": "head", "mixup": 0.2}, "a test")).views == 0
    with pytest.raises(ConfigError, match="views: 4 can't be kept, as mixup and cutmix mix"):
        parse_config({"strategy": "head", "mixup": 0.2, "cutmix": 1, "views": 4}, "a test")
    with pytest.raises(ConfigError, match=r"mixup: 0.001 is too small an alpha: 0.01 or more, or 0 for off"):
        parse_config({"mixup": 0.001}, "a test")

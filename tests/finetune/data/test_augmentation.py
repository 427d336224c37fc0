"""Levels of augmentation and erasing: what each does, from its seed alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.cache.reuse import shared_activation_uses
from finetune.config import parse_config
from finetune.data.augmentation import LEVELS, mean_colour, train_transform
from finetune.data.dataset import EpochBatchSampler, ImageDataset, make_loader
from finetune.data.splits import find_splits
from finetune.data.transforms import eval_transform, resize_for_cache
from finetune.resolve import resolve, run_id
from tests.finetune.data.test_transforms import TO, photo, ramp

CASES = [*((level, 0.0) for level in LEVELS), ("none", 0.5), ("strong", 0.5)]


@pytest.mark.parametrize(("augment", "erasing"), CASES)
def test_a_view_follows_from_its_seed_alone(augment: str, erasing: float) -> None:
    """Whatever was drawn before, and torch's own stream goes on as if nothing had been drawn."""
    base, transform = resize_for_cache(photo(133, 100), TO), train_transform(TO, augment, erasing)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    views = [transform(base, seed) for seed in range(20)]
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(transform(base, seed), view) for seed, view in reversed(list(enumerate(views))))
    assert all(view.shape == (3, 56, 56) and view.dtype == torch.uint8 for view in views)
    assert transform(base, 3, 32).shape == (3, 32, 32)
    assert len({view.numpy().tobytes() for view in views}) > 5


def test_levels_differ_in_how_much_of_the_picture_a_crop_keeps() -> None:
    """Measured on a ramp: the range of brightness across a view is the share of the width that it shows."""
    base = ramp(200, 200)

    def least_share(level: str) -> float:
        views = [train_transform(TO, level)(base, seed) for seed in range(300)]
        spans = [(view[0].amax() - view[0].amin()) / 250 * (view[1].amax() - view[1].amin()) / 250 for view in views]
        return float(min(spans))

    assert 0.6 < least_share("light") < 0.8  # 0.7, less what smoothing takes at the edges
    assert 0.2 < least_share("standard") < 0.35
    assert least_share("strong") < 0.15


def test_only_strong_changes_colours() -> None:
    """A grey image stays grey 90 but there; and what a turn brings into view has the mean colour."""
    grey = torch.full((3, 80, 80), 90, dtype=torch.uint8)
    values = {
        level: {int(value) for seed in range(60) for value in train_transform(TO, level)(grey, seed).unique()}
        for level in LEVELS
    }
    assert values["light"] == values["standard"] == {90}
    assert len(values["strong"]) > 10
    colour = torch.tensor(mean_colour(TO), dtype=torch.uint8)
    views = [train_transform(TO, "strong")(grey, seed) for seed in range(60)]
    assert any((view == colour[:, None, None]).all(0).any() for view in views)


def erased_share(view: Tensor) -> float:
    return float((view == torch.tensor(mean_colour(TO), dtype=torch.uint8)[:, None, None]).all(0).float().mean())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_erasing_fills_a_part_of_so_many_views_with_the_mean_colour(share: float) -> None:
    """A fiftieth to a third of the area; the rest of the view is the one there is without, and so are the others."""
    base = torch.full((3, 80, 80), 7, dtype=torch.uint8)
    kept, plain = base.clone(), train_transform(TO, "standard")
    parts = [erased_share(train_transform(TO, "standard", share)(base, seed)) for seed in range(400)]
    assert torch.equal(base, kept)  # a cache's image is not written into
    assert all(part == 0 or 0.015 < part < 0.36 for part in parts)
    assert sum(part > 0 for part in parts) / 400 == pytest.approx(share, abs=0.07)
    picture = resize_for_cache(photo(133, 100), TO)
    for seed in range(20):
        view, without = train_transform(TO, "standard", share)(picture, seed), plain(picture, seed)
        assert float((view != without).any(0).float().mean()) <= 0.36


@pytest.mark.parametrize("augment", ["none", *LEVELS])
def test_the_same_picture_through_both_objects_is_augmented_in_training_alone(pictures: Path, augment: str) -> None:
    """Train and evaluation over the same files: neither takes over the other's transform, whoever draws in between."""
    split = find_splits(pictures, 0).train
    training = ImageDataset(pictures, split, TO, train_transform(TO, augment, 0.5))
    evaluation = ImageDataset(pictures, split, TO, eval_transform(TO))
    batches, in_order = EpochBatchSampler(len(split), 6, seed=0), EpochBatchSampler(len(split), 6, None)

    def seen(dataset: ImageDataset, some: EpochBatchSampler, workers: int = 0) -> Tensor:
        return torch.cat([images for images, _ in make_loader(dataset, some, workers, pin=False)])

    before = seen(evaluation, in_order)
    first = seen(training, batches)
    batches.epoch = 1
    second = seen(training, batches)
    assert torch.equal(seen(evaluation, in_order), before)
    assert not torch.equal(first, second)
    assert torch.equal(seen(training, batches, workers=2), second)
    middle = torch.stack([evaluation["", index, None][0] for index in range(len(split))])
    assert torch.equal(before, middle)
    again = torch.stack([training["seed 0 epoch 1", index, None][0] for index in range(len(split))])
    assert not torch.equal(again, middle)


def test_what_runs_share_and_are_called_tells_the_levels_apart() -> None:
    """Views with and without erasing are not the same; at 0 it changes no name that runs have had."""
    blocks = 9

    def config(**values: object):  # type: ignore[no-untyped-def]
        return resolve(parse_config({"strategy": "head", "epochs": 4, **values}, "a test"))

    plain, erased = config(), config(erasing=0.25)
    assert run_id(plain, "data", "weights") == run_id(config(erasing=0.0, mixup=0, cutmix=0), "data", "weights")
    kinds = [plain, erased, config(augment="light"), config(augment="strong"), config(mixup=0.2)]
    assert len({run_id(kind, "data", "weights") for kind in kinds}) == len(kinds)
    for other in kinds[1:]:
        uses, alone = (shared_activation_uses(plain, runs, blocks) for runs in ([plain, other], [plain]))
        assert {need.view for need, count in uses.items() if count > alone[need]} == {None}
    assert sum(shared_activation_uses(erased, [erased, config(erasing=0.25, seed=1)], blocks).values()) == 18
    assert config(augment="none").views == 1
    assert config(augment="none", erasing=0.1).views == 4

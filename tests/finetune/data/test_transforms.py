"""Transforms: what evaluation saw with torchvision's own, crops drawn as torchvision draws them, repeatable."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from finetune.data.augmentation import CROP_ATTEMPTS, CROP_RATIO, LEVELS, random_crop, train_transform
from finetune.data.transforms import eval_transform, normalise, resize_for_cache, stack
from finetune.pretrained import Preprocessing, preprocessing_of

SCALE = LEVELS["standard"].crop_scale
TO = Preprocessing(64, 56, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear")


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image with large and small structures."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-30, 30, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def ramp(width: int, height: int) -> Tensor:
    """Return a base image that gets brighter to the right, in the first channel, and downwards, in the second."""
    picture = torch.zeros(height, width, 3, dtype=torch.uint8)
    picture[:, :, 0] = torch.linspace(0, 250, width).to(torch.uint8)
    picture[:, :, 1] = torch.linspace(0, 250, height).to(torch.uint8)[:, None]
    return picture.permute(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(133, 100), (136, 100), (100, 133), (64, 64), (65, 90), (400, 40), (40, 30)])
def test_evaluation_is_torchvisions_resize_and_central_crop(size: tuple[int, int], interpolation: str) -> None:
    """Bit for bit, whatever the picture's proportions; normalised, the numbers agree to rounding."""
    preprocessing = replace(TO, interpolation=interpolation)
    theirs = [
        v2.PILToTensor(),
        v2.Resize(preprocessing.resize_px, InterpolationMode(interpolation), antialias=True),
        v2.CenterCrop(preprocessing.crop_px),
    ]
    expected = v2.Compose(theirs)(photo(*size))
    ours = eval_transform(preprocessing)(resize_for_cache(photo(*size), preprocessing))
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, expected)
    last = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(preprocessing.mean), list(preprocessing.std))]
    )
    assert (normalise(ours[None], preprocessing) - last(expected)[None]).abs().max() < 1e-6


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_v2_s", "efficientnet_b0", "vit_b_16"])
def test_evaluation_is_that_of_the_published_weights(backbone: str) -> None:
    """As the weights' own transforms have it, up to a grey level (they round once, torch's uint8 resize twice)."""
    preprocessing = preprocessing_of(backbone, "DEFAULT", None)
    picture = photo(500, 420)
    ours = normalise(eval_transform(preprocessing)(resize_for_cache(picture, preprocessing))[None], preprocessing)
    theirs = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()(v2.functional.pil_to_tensor(picture))
    levels = 1 if preprocessing.interpolation == "bilinear" else 2
    assert (ours[0] - theirs).abs().max() <= 1.001 * levels / 255 / min(preprocessing.std)


def test_a_normalised_batch_is_float32_with_channels_last() -> None:
    """That is how convolutions want it, however the bytes lay, and for every position in the batch."""
    batch = torch.randint(0, 256, (3, 3, 7, 5), dtype=torch.uint8)
    expected = v2.functional.normalize(batch / 255, list(TO.mean), list(TO.std))
    for images in (batch, batch.to(memory_format=torch.channels_last)):
        result = normalise(images, TO)
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert (result - expected).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(256, 341), (300, 224), (224, 224), (64, 1000), (1000, 64)])
def test_crops_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    """Place and size of crops, tested against RandomResizedCrop's own; in a strip both take the middle at last."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.rand(3000, 2 * CROP_ATTEMPTS + 2, generator=generator).tolist()
    ours = np.array([random_crop(*size, some, SCALE) for some in numbers])
    theirs = torchvision.transforms.RandomResizedCrop(8, scale=SCALE, ratio=CROP_RATIO)
    blank = torch.zeros(1, *size)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        drawn = np.array([theirs.get_params(blank, list(SCALE), list(CROP_RATIO)) for _ in range(3000)])
    for what in range(4):
        assert ks_2samp(ours[:, what], drawn[:, what]).pvalue > 0.005
    top, left, height, width = ours.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()


def test_crops_reach_every_edge() -> None:
    """The smallest and the largest numbers give the first and the last place."""
    most = 1 - 2**-24
    for place in (0.0, most):
        top, left, height, width = random_crop(256, 341, [place, place] + [0.5] * 2 * CROP_ATTEMPTS, SCALE)
        assert (top, left) == ((0, 0) if place == 0 else (256 - height, 341 - width))


def test_a_training_picture_is_an_antialiased_resized_crop() -> None:
    """A quarter to all of the image, resized as torchvision does, up to one grey level; half of them are flipped."""
    base = resize_for_cache(photo(300, 200), TO)
    flipped = 0
    for seed in range(60):
        view = train_transform(TO, "standard")(base, seed)
        generator = torch.Generator().manual_seed(seed)
        flip, *numbers = torch.rand(2 * CROP_ATTEMPTS + 3, generator=generator).tolist()
        box = random_crop(base.shape[1], base.shape[2], numbers, SCALE)
        expected = v2.functional.resized_crop(base, *box, [56, 56], antialias=True)
        if flip < 0.5:
            expected, flipped = expected.flip(2), flipped + 1
        assert (view.int() - expected.int()).abs().max() <= 1
        assert 0.24 <= box[2] * box[3] / (base.shape[1] * base.shape[2]) <= 1
    assert 15 < flipped < 45


def test_a_crop_depends_on_its_seed_alone() -> None:
    """The same seed, the same square, whatever torch's global stream did; that stream is left alone."""
    transform, base = train_transform(TO, "standard"), ramp(90, 64)
    torch.manual_seed(0)
    first, after = transform(base, 5), torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(transform(base, 5), first)
    assert not torch.equal(transform(base, 6), first)


@pytest.mark.parametrize("augment", ["none", "standard"])
def test_another_side_shows_the_same_at_another_resolution(augment: str) -> None:
    """Progressive resizing changes the size of the images, not what is seen of them."""
    transform, base = train_transform(TO, augment), ramp(120, 64)
    for seed in range(10):
        large, small = transform(base, seed), transform(base, seed, 28)
        assert small.shape == (3, 28, 28)
        halved = torch.nn.functional.avg_pool2d(large.float(), 2)
        assert (halved - small).abs().max() < 5


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    """`augment: none` is the central crop, for every seed."""
    base = ramp(90, 64)
    assert torch.equal(train_transform(TO, "none")(base, 3), eval_transform(TO)(base))


def test_all_pictures_lie_channels_last() -> None:
    """Base images, crops and flips: a batch of anything else would have to be turned around."""
    base = resize_for_cache(photo(100, 133), TO)
    views = [base, eval_transform(TO)(base), *(train_transform(TO, "standard")(base, seed) for seed in range(6))]
    assert [view.stride()[0] for view in views] == [1] * len(views)
    batch = stack(views[1:])
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, torch.stack(views[1:]))


def test_a_strip_does_not_fill_the_memory() -> None:
    """An image of 1 x 6,000 pixels is cut to its middle before its short side is enlarged."""
    assert resize_for_cache(photo(6000, 1), TO).shape == (3, 64, 16 * 64)
    assert resize_for_cache(photo(1, 6000), TO).shape == (3, 16 * 64, 64)


def test_transforms_can_be_sent_to_loader_processes(tmp_path: Path) -> None:
    """Where processes are not forked, transforms are pickled."""
    for transform in (eval_transform(TO), train_transform(TO, "standard")):
        (tmp_path / "transform").write_bytes(pickle.dumps(transform))
        again = pickle.loads((tmp_path / "transform").read_bytes())
        assert torch.equal(again(ramp(90, 64), 1), transform(ramp(90, 64), 1))


def test_preprocessing_comes_from_the_weights() -> None:
    """Published sizes, mean and std; another size keeps the ratio of resize to crop."""
    own = preprocessing_of("efficientnet_v2_s", "DEFAULT", None)
    assert (own.crop_px, own.resize_px) == (384, 384)
    small = preprocessing_of("squeezenet1_0", "IMAGENET1K_V1", 160)
    assert (small.crop_px, small.resize_px) == (160, 183)
    assert small.mean == (0.485, 0.456, 0.406)

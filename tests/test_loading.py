"""Loading: upright, repeatable for any number of loader processes, and train and val never share a transform."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from finetune.data.loading import Batches, Pictures, make_loader, read_picture
from finetune.data.splits import find_splits
from finetune.data.transforms import Preprocessing, eval_transform, preprocessing, train_transform
from finetune.errors import DataError

TO = Preprocessing(resize_px=24, crop_px=24, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")


def epoch_tensor(root: Path, workers: int, seed: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = find_splits(root, 0).train
    batches = Batches(len(pictures), 5, seed)
    batches.epoch = epoch
    loader = make_loader(Pictures(root, pictures, train_transform(TO, "standard"), seed), batches, workers, pin=False)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_a_picture_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    """EXIF orientation 6 means: turn by 90 degrees clockwise to see it upright."""
    image = Image.new("RGB", (30, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert read_picture(tmp_path / "phone.jpg").size == (20, 30)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """Grey, palette, alpha, print and 16-bit pictures all reach the network with three channels."""
    name = "a.tif" if mode in ("CMYK", "I;16") else "a.png"
    Image.new(mode, (8, 8)).save(tmp_path / name)
    assert read_picture(tmp_path / name).mode == "RGB"


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    """The error says which file it was."""
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        read_picture(tmp_path / "broken.jpg")


def test_batches_do_not_depend_on_loader_processes(pictures: Path) -> None:
    """Same seed and epoch: the same pixels in the same order, with 0 or 2 workers; another epoch or seed: others."""
    images, labels = epoch_tensor(pictures, 0, seed=1, epoch=3)
    again, same_labels = epoch_tensor(pictures, 2, seed=1, epoch=3)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    assert not torch.equal(images, epoch_tensor(pictures, 0, seed=1, epoch=4)[0])
    assert not torch.equal(images, epoch_tensor(pictures, 0, seed=2, epoch=3)[0])


def test_loading_leaves_the_global_stream_alone(pictures: Path) -> None:
    """Augmentation draws from its own stream: dropout draws the same with any augmentation."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Pictures(pictures, find_splits(pictures, 0).train, train_transform(TO, "standard"), 0)[(0, 0)]
    assert torch.equal(torch.rand(3), expected)


def test_train_augments_and_evaluation_does_not(pictures: Path) -> None:
    """The same picture through both: two epochs differ in training and are equal in evaluation, whoever goes first."""
    split = find_splits(pictures, 0).train
    train = Pictures(pictures, split, train_transform(TO, "standard"), 0)
    evaluation = Pictures(pictures, split, eval_transform(TO), 0)
    assert not torch.equal(train[(0, 0)][0], train[(1, 0)][0])
    assert torch.equal(evaluation[(0, 0)][0], evaluation[(1, 0)][0])


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(10, 5, [5, 5]), (11, 5, [5, 6]), (12, 5, [5, 5, 2]), (1, 5, [1])]
)
def test_no_training_batch_of_one(count: int, size: int, sizes: list[int]) -> None:
    """Batch-norm can't train on one picture, so a lone last one joins the batch before it; none is left out."""
    batches = list(Batches(count, size, seed=0))
    assert [len(batch) for batch in batches] == sizes
    assert len(Batches(count, size, seed=0)) == len(sizes)
    assert sorted(index for batch in batches for _, index in batch) == list(range(count))


def test_preprocessing_comes_from_the_weights() -> None:
    """Published sizes, mean and std; another size keeps the ratio of resize to crop."""
    own = preprocessing("efficientnet_v2_s", "DEFAULT", None)
    assert (own.crop_px, own.resize_px) == (384, 384)
    small = preprocessing("squeezenet1_0", "IMAGENET1K_V1", 160)
    assert (small.crop_px, small.resize_px) == (160, 183)
    assert small.mean == (0.485, 0.456, 0.406)

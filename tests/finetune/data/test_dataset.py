"""Loading: upright, repeatable for any number of loader processes, and train and val never share a transform."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from finetune.data.augmentation import train_transform
from finetune.data.dataset import EpochBatchSampler, ImageDataset, SampleRequest, make_loader
from finetune.data.images.image_io import read_image
from finetune.data.splits import find_splits
from finetune.data.transforms import eval_transform
from finetune.errors import DataError
from finetune.pretrained import Preprocessing

TO = Preprocessing(resize_px=24, crop_px=24, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")


def epoch_tensor(
    root: Path, workers: int, seed: int, epoch: int, draw: str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = find_splits(root, 0).train
    batches = EpochBatchSampler(len(pictures), 5, seed)
    batches.epoch, batches.draw = epoch, draw
    loader = make_loader(ImageDataset(root, pictures, TO, train_transform(TO, "standard")), batches, workers, pin=False)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def sorted_rows(images: torch.Tensor) -> torch.Tensor:
    """Return the images in an order of their own: equal for the same images in any order."""
    return torch.stack(sorted(images.flatten(1), key=lambda row: row.tolist()))


def test_a_picture_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    """EXIF orientation 6 means: turn by 90 degrees clockwise to see it upright."""
    image = Image.new("RGB", (30, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(tmp_path / "phone.jpg").size == (20, 30)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    """Grey, palette, alpha, print and 16-bit images all reach the network with three channels."""
    name = "a.tif" if mode in ("CMYK", "I;16") else "a.png"
    Image.new(mode, (8, 8)).save(tmp_path / name)
    assert read_image(tmp_path / name).mode == "RGB"


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    """The error says which file it was."""
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        read_image(tmp_path / "broken.jpg")


def test_batches_do_not_depend_on_loader_processes(pictures: Path) -> None:
    """Same seed and epoch: the same pixels in the same order, with 0 or 2 workers; elsewhere, other crops."""
    images, labels = epoch_tensor(pictures, 0, seed=1, epoch=3)
    again, same_labels = epoch_tensor(pictures, 2, seed=1, epoch=3)
    assert torch.equal(images, again)
    assert torch.equal(labels, same_labels)
    for seed, epoch in ((1, 4), (2, 3)):
        other = epoch_tensor(pictures, 0, seed, epoch)[0]
        assert not torch.equal(sorted_rows(images), sorted_rows(other))


def test_a_batch_is_of_bytes_with_channels_last(pictures: Path) -> None:
    """A quarter of what floats would take, in the order that convolutions want; labels are class numbers."""
    images, labels = epoch_tensor(pictures, 0, seed=1, epoch=0)
    assert images.dtype == torch.uint8
    assert images.shape == (len(labels), 3, 24, 24)
    assert labels.dtype == torch.int64
    split = find_splits(pictures, 0).train
    for workers in (0, 1):
        loader = make_loader(
            ImageDataset(pictures, split, TO, eval_transform(TO)), EpochBatchSampler(4, 4, None), workers, pin=False
        )
        ((batch, numbers),) = loader
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert numbers.tolist() == [picture.label for picture in split[:4]]


def test_a_named_draw_is_the_same_for_every_seed_and_epoch(pictures: Path) -> None:
    """Seeds and epochs that share a draw see the same squares, in an order of their own."""
    one, _ = epoch_tensor(pictures, 0, seed=1, epoch=3, draw="view 2")
    two, _ = epoch_tensor(pictures, 0, seed=2, epoch=5, draw="view 2")
    other, _ = epoch_tensor(pictures, 0, seed=1, epoch=3, draw="view 3")
    assert not torch.equal(one, two)
    assert torch.equal(sorted_rows(one), sorted_rows(two))
    assert not torch.equal(sorted_rows(one), sorted_rows(other))


def test_each_picture_has_numbers_of_its_own(pictures: Path) -> None:
    """One file listed twice is cut in two ways."""
    split = find_splits(pictures, 0).train[:1] * 2
    dataset = ImageDataset(pictures, split, TO, train_transform(TO, "standard"))
    assert not torch.equal(dataset[("a", 0, None)][0], dataset[("a", 1, None)][0])


@pytest.mark.parametrize("workers", [0, 2])
def test_another_side_reaches_processes_that_live_on(pictures: Path, workers: int) -> None:
    """The side of the images can change from epoch to epoch, with loader processes of the first epoch too."""
    split = find_splits(pictures, 0).train
    batches = EpochBatchSampler(len(split), 5, 0)
    loader = make_loader(
        ImageDataset(pictures, split, TO, train_transform(TO, "standard")), batches, workers, pin=False
    )
    for side, expected in ((None, 24), (16, 16), (20, 20)):
        batches.side = side
        assert {images.shape[2:] for images, _ in loader} == {(expected, expected)}


def test_loading_leaves_the_global_stream_alone(pictures: Path) -> None:
    """Augmentation draws from its own stream: dropout draws the same with any augmentation."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ImageDataset(pictures, find_splits(pictures, 0).train, TO, train_transform(TO, "standard"))[("a", 0, None)]
    assert torch.equal(torch.rand(3), expected)


def test_train_augments_and_evaluation_does_not(pictures: Path) -> None:
    """The same image through both: two epochs differ in training and are equal in evaluation, whoever goes first."""
    split = find_splits(pictures, 0).train
    train = ImageDataset(pictures, split, TO, train_transform(TO, "standard"))
    evaluation = ImageDataset(pictures, split, TO, eval_transform(TO))
    one: SampleRequest = ("seed 0 epoch 0", 0, None)
    two: SampleRequest = ("seed 0 epoch 1", 0, None)
    assert not torch.equal(train[one][0], train[two][0])
    assert torch.equal(evaluation[one][0], evaluation[two][0])


@pytest.mark.parametrize(
    ("count", "size", "sizes"), [(10, 5, [5, 5]), (11, 5, [5, 6]), (12, 5, [5, 5, 2]), (1, 5, [1])]
)
def test_no_training_batch_of_one(count: int, size: int, sizes: list[int]) -> None:
    """Batch-norm can't train on one image, so a lone last one joins the batch before it; none is left out."""
    batches = list(EpochBatchSampler(count, size, seed=0))
    assert [len(batch) for batch in batches] == sizes
    assert len(EpochBatchSampler(count, size, seed=0)) == len(sizes)
    assert sorted(index for batch in batches for _, index, _ in batch) == list(range(count))

"""The cache of decoded images: it changes no result, is filled once, goes on after an interruption, and gives way."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from finetune.cache import store
from finetune.cache.pixel_cache import DecodedImages, PixelCache
from finetune.cache.store import FillCallbacks
from finetune.data.augmentation import train_transform
from finetune.data.dataset import EpochBatchSampler, ImageDataset, make_loader
from finetune.data.images.image_io import read_image
from finetune.data.splits import Sample
from finetune.data.transforms import eval_transform, resize_for_cache
from finetune.errors import DataError, RunInterrupted
from finetune.pretrained import Preprocessing
from tests.support.logs import each_log_line

PREPROCESSING = Preprocessing(resize_px=48, crop_px=40, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, list[Sample]]:
    """Return a folder of images of many kinds, and the list of them."""
    root, rng = tmp_path / "odd", np.random.default_rng(0)
    root.mkdir()

    def noise(width: int, height: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    noise(90, 60).save(root / "turned.jpg", exif=exif)
    noise(70, 50).convert("L").save(root / "grey.jpg")
    noise(70, 50).convert("RGBA").save(root / "alpha.png")
    noise(70, 50).convert("P").save(root / "palette.png")
    noise(300, 20).save(root / "wide.png")
    noise(20, 300).save(root / "tall.png")
    noise(48, 48).save(root / "exact.png")
    noise(7, 9).save(root / "tiny.png")
    return root, [Sample(path.name, number % 3) for number, path in enumerate(sorted(root.iterdir()))]


def cache_of(root: Path, samples: list[Sample], fingerprint: str = "data") -> PixelCache:
    return PixelCache(root, samples, PREPROCESSING, fingerprint)


def build(root: Path, samples: list[Sample], threads: int = 2, fingerprint: str = "data") -> DecodedImages:
    pixels = cache_of(root, samples, fingerprint).build(threads)
    assert pixels is not None
    return pixels


@pytest.mark.parametrize("threads", [1, 3])
def test_the_cache_changes_no_result(odd: tuple[Path, list[Sample]], threads: int) -> None:
    """Turned, grey, palette, long and tiny images: bit for bit what decoding them anew gives, in both transforms."""
    root, pictures = odd
    pixels = build(root, pictures, threads)
    assert len(pixels) == len(pictures)
    for index, picture in enumerate(pictures):
        base = resize_for_cache(read_image(root / picture.path), PREPROCESSING)
        assert torch.equal(pixels[index], base)
        assert pixels[index].stride() == base.stride()
    for transform in (eval_transform(PREPROCESSING), train_transform(PREPROCESSING, "standard")):
        decoded = ImageDataset(root, pictures, PREPROCESSING, transform)
        cached = ImageDataset(root, pictures, PREPROCESSING, transform, pixels)
        for index in range(len(pictures)):
            (image, label), (again, same_label) = decoded[("a", index, None)], cached[("a", index, None)]
            assert torch.equal(image, again)
            assert label == same_label


def test_the_cache_changes_no_batch(odd: tuple[Path, list[Sample]]) -> None:
    """With and without it, in this process and in loader processes: the same batches."""
    root, pictures = odd
    pixels = build(root, pictures)

    def batches(cached: DecodedImages | None, workers: int) -> list[torch.Tensor]:
        dataset = ImageDataset(root, pictures, PREPROCESSING, train_transform(PREPROCESSING, "standard"), cached)
        return [
            images for images, _ in make_loader(dataset, EpochBatchSampler(len(pictures), 3, 0), workers, pin=False)
        ]

    expected = batches(None, 0)
    for other in (batches(pixels, 0), batches(pixels, 2)):
        assert all(torch.equal(one, two) for one, two in zip(expected, other, strict=True))


def test_it_can_be_sent_to_another_process(odd: tuple[Path, list[Sample]]) -> None:
    """Pickled, it is a path, and the file is mapped again."""
    pixels = build(*odd)
    packed = pickle.dumps(pixels)
    assert len(packed) < 1000
    assert all(torch.equal(one, two) for one, two in zip(pickle.loads(packed), pixels, strict=False))


def test_it_is_found_by_all_that_decides_its_bytes(odd: tuple[Path, list[Sample]]) -> None:
    """Another fingerprint of the data (an image was changed), list of images or size: another entry."""
    root, pictures = odd
    build(root, pictures)
    cache = cache_of(root, pictures)
    assert cache.open() is not None
    larger, bicubic = replace(PREPROCESSING, resize_px=50), replace(PREPROCESSING, interpolation="bicubic")
    for change in (
        {"fingerprint": "changed"}, {"samples": pictures[1:]}, {"samples": pictures[::-1]},
        {"preprocessing": larger}, {"preprocessing": bicubic},
    ):  # fmt: skip
        assert replace(cache, **change).open() is None
    same_base = replace(PREPROCESSING, crop_px=32, mean=(0.4,) * 3, std=(0.2,) * 3)
    assert replace(cache, preprocessing=same_base).open() is not None


def test_entries_keep_their_names_from_version_to_version(
    odd: tuple[Path, list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields by another name would give another hash, and every image would be decoded again."""
    fields: list[dict[str, object]] = []
    true_key = store.key_of
    monkeypatch.setattr(store, "key_of", lambda **values: fields.append(values) or true_key(**values))
    cache_of(*odd).open()
    names = ["version", "libraries", "data", "pictures", "resize_px", "interpolation"]
    assert [list(values) for values in fields] == [names]


def test_an_interrupted_build_continues(odd: tuple[Path, list[Sample]]) -> None:
    """The second call decodes what the first had not, and the bytes are those of an undisturbed build."""
    root, pictures = odd
    cache = cache_of(root, pictures)
    shares: list[float | None] = []
    with pytest.raises(RunInterrupted):
        cache.build(2, FillCallbacks(shares.append, lambda: len(shares) == 3))
    assert cache.open() is None
    again = cache.build(2, FillCallbacks(shares.append))
    assert again is not None
    assert shares == [done / len(pictures) for done in range(1, len(pictures) + 1)]
    undisturbed = build(root, pictures, fingerprint="same images, another name")
    assert (again.entry / "data.bin").read_bytes() == (undisturbed.entry / "data.bin").read_bytes()
    assert (again.entry / "index.bin").read_bytes() == (undisturbed.entry / "index.bin").read_bytes()


def test_of_two_builds_at_once_one_decodes(odd: tuple[Path, list[Sample]]) -> None:
    """The other one waits, and uses what the first has made."""
    root, pictures = odd
    shares: list[float | None] = []

    def once(_: int) -> DecodedImages | None:
        return cache_of(root, pictures).build(1, FillCallbacks(shares.append))

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(once, range(2))
    assert one is not None
    assert two is not None
    assert one.entry == two.entry
    decoded = [share for share in shares if share is not None]  # None: while one waits for the other
    assert decoded == [done / len(pictures) for done in range(1, len(pictures) + 1)]


def test_a_picture_that_cannot_be_read_is_named(odd: tuple[Path, list[Sample]]) -> None:
    """As without the cache; and the images before it need not be decoded again."""
    root, pictures = odd
    (root / "zz.jpg").write_bytes(b"\xff\xd8\xff nothing")
    with pytest.raises(DataError, match=r"zz\.jpg"):
        build(root, [*pictures, Sample("zz.jpg", 0)])
    progress = next(store.entries_folder().glob("*.part/progress.json"))
    assert f'"rows": {len(pictures)}' in progress.read_text()


def test_without_room_pictures_are_decoded_each_time(
    odd: tuple[Path, list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says why, and nothing is left behind."""
    monkeypatch.setenv("FINETUNE_CACHE_GB", "0.000001")
    lines: list[str] = []
    with each_log_line(lines.append):
        assert cache_of(*odd).build(1) is None
    assert "no room" in lines[0]
    assert "FINETUNE_CACHE_GB" in lines[0]
    assert store.used_bytes() == 0


def test_a_cache_that_cannot_be_written_is_done_without(
    odd: tuple[Path, list[Sample]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cache folder that is a file, say: the log says so, and the run goes on."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file"))
    lines: list[str] = []
    with each_log_line(lines.append):
        assert cache_of(*odd).build(1) is None
    assert "can't be written" in lines[0]


def test_what_is_evicted_can_be_used_to_the_end(odd: tuple[Path, list[Sample]]) -> None:
    """A run that has opened its images keeps them, whoever deletes the files."""
    root, pictures = odd
    pixels = build(root, pictures)
    shutil.rmtree(store.entries_folder())
    assert torch.equal(pixels[3], resize_for_cache(read_image(root / pictures[3].path), PREPROCESSING))


def test_the_disk_that_it_takes_is_known_before(pictures: Path) -> None:
    """From the headers of some images: right where all have one size."""
    listed = [Sample(path.relative_to(pictures).as_posix(), 0) for path in sorted(pictures.glob("*/*/*.png"))]
    pixels = build(pictures, listed)
    size = (pixels.entry / "data.bin").stat().st_size
    assert cache_of(pictures, listed).expected_bytes() == pytest.approx(size, rel=0.02)


def test_another_splits_pictures_are_refused(odd: tuple[Path, list[Sample]]) -> None:
    """A mix-up of splits would go unnoticed otherwise."""
    root, pictures = odd
    with pytest.raises(ValueError, match="not those"):
        ImageDataset(root, pictures[1:], PREPROCESSING, eval_transform(PREPROCESSING), build(root, pictures))

"""The embedded demo: its images, its cache, its pretrained weights."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from finetune.data.demo import images
from finetune.models import demo_weights
from finetune.models.demo_weights import DEMO_BACKBONE, demo_weights_path, pretrain


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and few small images a class, so that drawing takes no time."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(images, "SPLITS", {"train": 3, "val": 1, "test": 2})
    monkeypatch.setattr(images, "IMAGE_PX", 32)
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_the_same_seed_draws_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    images.draw_target(tmp_path / "again")
    assert contents(images.demo_folder()) == contents(tmp_path / "again")
    assert images.demo_folder().parent == cache


def test_source_pictures_repeat_and_ranges_share_none() -> None:
    drawn, labels = images.draw_source(2, 32)
    again, _ = images.draw_source(2, 32)
    later, _ = images.draw_source(1, 32, first=1)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (2 * len(images.SOURCE_CLASSES), 3, 32, 32)
    assert labels.tolist() == 2 * list(range(len(images.SOURCE_CLASSES)))
    np.testing.assert_array_equal(drawn, again)
    # Image 1 of each class is the same wherever a range begins, and is not image 0.
    np.testing.assert_array_equal(drawn[len(images.SOURCE_CLASSES) :], later)
    assert not (drawn[: len(images.SOURCE_CLASSES)] == later).all(axis=(1, 2, 3)).any()


@pytest.mark.usefixtures("cache")
def test_every_class_has_its_pictures_in_every_split() -> None:
    folder = images.demo_folder()
    assert {path.name for path in folder.iterdir()} == set(images.SPLITS)
    for split, count in images.SPLITS.items():
        assert {path.name for path in (folder / split).iterdir()} == set(images.TARGET_CLASSES)
        for name in images.TARGET_CLASSES:
            pictures = list((folder / split / name).iterdir())
            assert len(pictures) == count
            with Image.open(pictures[0]) as picture:
                assert (picture.size, picture.mode) == ((images.IMAGE_PX, images.IMAGE_PX), "RGB")


@pytest.mark.usefixtures("cache")
def test_no_two_pictures_are_alike() -> None:
    drawn = list(contents(images.demo_folder()).values())
    assert len(set(drawn)) == len(drawn)


def test_new_pictures_are_in_no_split_and_are_drawn_once(cache: Path, tmp_path: Path) -> None:
    """So many of each class, in a folder of its name, always the same, unlike all others; more leave these alone."""
    paths = images.draw_new(tmp_path / "new", 2)
    assert [path.parent.name for path in paths] == [name for name in images.TARGET_CLASSES for _ in range(2)]
    drawn = contents(tmp_path / "new")
    assert len(set(drawn.values())) == len(paths)
    assert not set(drawn.values()) & set(contents(images.demo_folder()).values())
    before = paths[0].stat().st_mtime_ns
    more = images.draw_new(tmp_path / "new", 3)
    assert set(paths) < set(more)
    assert paths[0].stat().st_mtime_ns == before
    images.draw_new(tmp_path / "again", 2)
    assert contents(tmp_path / "again") == drawn
    assert cache.is_dir()


def test_target_and_source_share_no_class() -> None:
    assert len(images.TARGET_CLASSES) == 10
    assert not set(images.TARGET_CLASSES) & set(images.SOURCE_CLASSES)


def test_the_mean_colour_does_not_tell_the_class() -> None:
    """Naming source images by their mean colour, nearest class mean, is hardly better than guessing."""
    drawn, labels = images.draw_source(20, 32)
    colours = drawn.mean(axis=(2, 3))
    known = np.arange(len(labels)) < len(labels) // 2
    means = np.stack([colours[known & (labels == label)].mean(axis=0) for label in range(len(images.SOURCE_CLASSES))])
    named = np.linalg.norm(colours[~known][:, None] - means, axis=2).argmin(axis=1)
    assert (named == labels[~known]).mean() < 0.15


def test_what_a_killed_process_left_is_not_taken_for_the_data(cache: Path, tmp_path: Path) -> None:
    for name in (".demo-pictures.0123.tmp", f"demo-pictures-{images.DEMO_VERSION}"):
        images.draw_target(cache / name)
        shutil.rmtree(cache / name / "test")
    images.draw_target(tmp_path / "again")
    assert contents(images.demo_folder()) == contents(tmp_path / "again")


def test_drawing_that_is_interrupted_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(folder: Path) -> None:
        (folder / "train" / "fish").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "draw_target", dies)
    with pytest.raises(KeyboardInterrupt):
        images.demo_folder()
    assert list(cache.iterdir()) == []


def test_two_can_draw_at_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier, draw = threading.Barrier(2), images.draw_target
    folders: list[Path] = []

    def together(folder: Path) -> None:
        draw(folder)
        barrier.wait(timeout=60)  # both are done drawing before either renames

    monkeypatch.setattr(images, "draw_target", together)
    threads = [threading.Thread(target=lambda: folders.append(images.demo_folder())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders[0] == folders[1]
    assert list(cache.iterdir()) == [folders[0]]
    assert len(contents(folders[0])) == len(images.TARGET_CLASSES) * sum(images.SPLITS.values())


def test_pretraining_leaves_a_state_dict_of_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps on few images write a file that torchvision's network takes, and leave the random stream alone."""
    monkeypatch.setattr(demo_weights, "HELD_OUT_PER_CLASS", 2)
    stream = torch.get_rng_state()
    told: list[float] = []
    accuracy = pretrain(tmp_path / "cache" / "w.pt", 2, 2, lambda _, share: told.append(share))
    assert torch.equal(stream, torch.get_rng_state())
    assert 0 <= accuracy <= 1
    assert told[-1] == 1.0
    state = torch.load(tmp_path / "cache" / "w.pt", weights_only=True)
    network = torchvision.models.get_model(DEMO_BACKBONE, weights=None, num_classes=len(images.SOURCE_CLASSES))
    network.load_state_dict(state, strict=True)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["w.pt"]


def test_weights_are_pretrained_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def quick(path: Path, **_: object) -> float:
        calls.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"a": torch.ones(9)}, path)
        return 0.75

    monkeypatch.setattr("finetune.models.demo_weights.pretrain", quick)
    assert demo_weights_path() == demo_weights_path() == calls[0]
    assert calls[0].parent == cache
    assert len(calls) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # one line before, one after, no bar: this is no terminal
    assert "75.0%" in said[1]
    calls[0].write_bytes(calls[0].read_bytes()[:-30])
    assert demo_weights_path() == calls[0]
    assert len(calls) == 2
    assert "is damaged: renamed to " in capsys.readouterr().err.splitlines()[0]

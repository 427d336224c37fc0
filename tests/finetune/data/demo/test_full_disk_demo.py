"""The demo's images and weights on a disk that is full: a message, nothing half-way, and the whole later."""

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.data.demo import images
from finetune.data.demo.images import demo_folder
from finetune.models import demo_weights
from finetune.models.torch_files import read_state_dict
from finetune.system.atomic import WriteError
from tests.support.failing_disk import each_write_failing


def code_of(path: Path, work: Callable[..., object], *arguments: object) -> int:
    """Return 0, or 1 where a message says that `path` can't be written."""
    try:
        work(*arguments)
    except WriteError as error:
        return int(str(error).startswith(f"{path} can't be written (No space left on device; "))
    return 0


def test_pictures_are_drawn_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write fails; the next command draws them."""
    monkeypatch.setattr(images, "SPLITS", {"train": 1, "test": 1})
    folder = tmp_path / "cache" / f"demo-pictures-{images.DEMO_VERSION}"
    for ended, told in each_write_failing(tmp_path, lambda: code_of(folder, demo_folder), step=3):
        assert ended == 1, told
        assert not list(tmp_path.glob("cache/*")), told
    assert demo_folder() == folder
    assert len(list(folder.glob("*/*/*.png"))) == 2 * len(images.TARGET_CLASSES)


def test_weights_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever write fails; the next command trains them again."""
    monkeypatch.setattr(demo_weights, "_source", lambda *_, **__: ([], []))  # what is trained is of no matter here
    monkeypatch.setattr(demo_weights, "_fit", lambda *_: None)
    monkeypatch.setattr(demo_weights, "_accuracy", lambda *_: 0.5)
    path = tmp_path / "cache" / "demo.pt"
    points = []
    for ended, told in each_write_failing(tmp_path, lambda: code_of(path, demo_weights.pretrain, path, 1, 1)):
        assert ended == 1, told
        assert not list(tmp_path.glob("cache/*")), told
        points.append(told)
    assert sum(": write .demo.pt." in told for told in points) > 1  # the tensors, too, not only the checksum
    assert read_state_dict(path)

"""The cache of activations: the same results, computed once, whatever happens meanwhile."""

import contextlib
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from finetune.cache import activation_entries, activation_fill, entry_writer, store
from finetune.config import Config, parse_config
from finetune.errors import RunInterrupted, TrainingError
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.models.weights import weights_hash
from finetune.resolve import resolve
from finetune.run import preflight
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents
from tests.support.faults import flip
from tests.support.logs import each_log_line

SMALL: dict[str, Any] = {
    **{"backbone": "squeezenet1_1", "weights": "none", "image_px": 32, "batch_size": 8, "epochs": 2, "lr": 3e-3},
    **{"device": "cpu", "views": 2},
}
BLOCKS = 9
WITH_BATCH_NORM = "shufflenet_v2_x0_5"


def small(pictures: Path, **values: Any) -> Config:
    return resolve(parse_config({**SMALL, "data": str(pictures), **values}, "a test"))


def entries(kind: str = "activations") -> list[dict[str, Any]]:
    """Return what the entries of the store say of themselves, by cut and view."""
    found = [documents.read_json(path) or {} for path in store.entries_folder().glob(f"{kind}-*/{entry_writer.ABOUT}")]
    return sorted(found, key=lambda about: (about["network"][1], str(about["pictures"]), str(about["view"])))


def rows_by_entry() -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in store.entries_folder().glob("activations-*/rows.bin")}


class Done(list[str]):
    """A run, done: its log lines."""

    def __init__(self, config: Config, folder: Path, **options: Any) -> None:
        super().__init__()
        with each_log_line(self.append):
            run(config, folder, **options)
        self.history = files.read_history(folder)[0]
        self.weights = load_checkpoint(folder / keys.BEST)["model"]
        self.summary = documents.read_json(folder / keys.SUMMARY) or {}


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_entries, "STORED", np.float32)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(
    "strategy", ["head", "gradual", *(pytest.param(name, marks=pytest.mark.slow) for name in ("partial", "lpft"))]
)
def test_stored_in_float32_the_run_is_the_same_to_the_last_bit_or_rounding(
    strategy: str, pictures: Path, tmp_path: Path
) -> None:
    """A prefix computed in other batches differs by rounding alone, and so do the losses of all epochs."""
    values = {"strategy": strategy, "backbone": WITH_BATCH_NORM, "epochs": 3}
    cached = Done(small(pictures, **values, cache="on"), tmp_path / "cached")
    plain = Done(small(pictures, **values, cache="off"), tmp_path / "plain")
    assert entries()
    off = 1e-4 if strategy in ("head", "partial") else 1e-2  # AdamW makes much of rounding where gradients are tiny
    for row, other in zip(cached.history, plain.history, strict=True):
        assert row["train/loss"] == pytest.approx(other["train/loss"], rel=off)
        assert row["val/loss"] == pytest.approx(other["val/loss"], rel=off)
    assert sum(row["seconds/prefix"] for row in cached.history) < sum(row["seconds/prefix"] for row in plain.history)


@pytest.mark.usefixtures("in_float32")
def test_with_the_same_batches_the_run_is_the_same_bit_for_bit(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches in the split's order, as large as those that fill the cache."""
    monkeypatch.setattr(activation_fill, "CHUNK", 8)
    monkeypatch.setattr("finetune.training.batch_source.CHUNK", 8)
    monkeypatch.setattr(torch, "randperm", lambda count, generator=None: torch.arange(count))  # noqa: ARG005
    values = {"strategy": "partial", "backbone": WITH_BATCH_NORM}
    cached = Done(small(pictures, **values, cache="on"), tmp_path / "cached")
    plain = Done(small(pictures, **values, cache="off"), tmp_path / "plain")
    assert all(torch.equal(cached.weights[name], value) for name, value in plain.weights.items())
    assert [row["train/loss"] for row in cached.history] == [row["train/loss"] for row in plain.history]
    assert not any(row["seconds/prefix"] > 0.05 for row in cached.history)


def test_stored_in_float16_the_run_is_the_same_to_a_hundredth(pictures: Path, tmp_path: Path) -> None:
    """As it is by default."""
    cached = Done(small(pictures, strategy="partial", cache="on"), tmp_path / "cached")
    plain = Done(small(pictures, strategy="partial", cache="off"), tmp_path / "plain")
    assert {about["type"] for about in entries()} == {"float16"}
    first, other = cached.history[0], plain.history[0]
    assert first["train/loss"] == pytest.approx(other["train/loss"], rel=5e-3)  # later, random weights run apart
    assert first["train/loss"] != other["train/loss"]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Return a list that gets (pictures, start, cut) of each pass through a frozen part."""
    passes = []
    true_run = FrozenPrefix.run

    def counting(self: FrozenPrefix, hidden: torch.Tensor, start: int, cut: int) -> torch.Tensor:
        if start < cut and len(hidden) > 2:  # two images are for looking at shapes
            passes.append((len(hidden), start, cut))
        return true_run(self, hidden, start, cut)

    monkeypatch.setattr(FrozenPrefix, "run", counting)
    return passes


def test_a_sweep_computes_the_frozen_part_once_for_all_cuts_rates_and_seeds(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass over the images for each view, and one over val and test; later runs have nothing left to compute."""
    weights = str(weights_file(tmp_path))
    configs = [
        small(pictures, strategy=strategy, lr=lr, weights=weights, seed=seed, epochs=3)
        for strategy, seeds in (("head", (0, 1)), ("partial", (1, 0)), ("gradual", (1, 1)))
        for lr, seed in zip((1e-3, 3e-3), seeds, strict=True)
    ]
    passes = counted(monkeypatch)
    Done(configs[0], tmp_path / "0", peers=configs)
    first = sum(count for count, start, _ in passes if start == 0)
    assert first == 2 * 24 + 6 + 12  # train twice, val, test: 24, 6 and 12 images
    assert {about["network"][1] for about in entries()} == {3, 6, BLOCKS}
    passes.clear()
    logs = [Done(config, tmp_path / str(number), peers=configs) for number, config in enumerate(configs[1:], start=1)]
    assert not [line for done in logs for line in done if line.startswith("cache: no room")]
    assert not [count for count, *_ in passes if count in (24, 6)]  # neither train nor val
    # Test, where val chose an epoch whose cut is the last one of no run, is all that is left.
    assert sum(count for count, start, _ in passes if start == 0) <= 12 * 2


def test_what_a_run_fills_for_its_peers_is_of_the_weights_that_nothing_has_trained(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that comes up in a later epoch, at a cut behind blocks that have trained by then."""
    partial, head = (small(pictures, strategy=strategy, epochs=3, views=3, lr=0.03) for strategy in ("partial", "head"))

    def features() -> dict[str, bytes]:
        return {
            path.parent.name: path.read_bytes()
            for path in store.entries_folder().glob("activations-*/rows.bin")
            if (documents.read_json(path.parent / entry_writer.ABOUT) or {})["network"][1] == BLOCKS
        }

    peers = [peer.model_copy(update={"lr": lr}) for peer in (partial, head) for lr in (0.03, 0.01)]
    Done(partial, tmp_path / "partial", peers=peers)
    filled = features()
    assert len(filled) == 5  # three views of train, val, test
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "other"))
    Done(head.model_copy(update={"cache": "on"}), tmp_path / "head")
    assert features() == filled


def weights_file(folder: Path) -> Path:
    """Return a state dict of the small network."""
    path = folder / "weights.pth"
    if not path.exists():
        from finetune.models.classifier import build_network

        torch.manual_seed(5)
        torch.save(build_network("squeezenet1_1", 32).state_dict(), path)
    assert weights_hash("squeezenet1_1", str(path))
    return path


def test_auto_keeps_what_is_used_twice_and_says_why(pictures: Path, tmp_path: Path) -> None:
    """A lone run with a view for each epoch uses only val again; with fewer views, these too."""
    alone = Done(small(pictures, strategy="head", views=2), tmp_path / "a")
    assert [(about["pictures"][0], about["view"]) for about in entries()] == [("val", None)]
    assert [line for line in alone if "would use it once at most" in line]
    fewer = Done(small(pictures, strategy="head", views=1), tmp_path / "b")
    assert ("train", 0) in [(about["pictures"][0], about["view"]) for about in entries()]
    assert [line for line in fewer if "train view 0 before the head" in line and "for 2 epochs" in line]


def test_off_keeps_nothing(pictures: Path, tmp_path: Path) -> None:
    """Neither activations nor images."""
    Done(small(pictures, strategy="head", cache="off"), tmp_path / "run")
    assert not store.entries_folder().exists()


def test_filling_that_is_interrupted_continues_and_gives_the_same(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after each chunk, the entries are those of an undisturbed run."""
    monkeypatch.setattr(activation_fill, "CHUNK", 8)
    monkeypatch.setattr("finetune.training.batch_source.CHUNK", 8)
    run(small(pictures, strategy="full", cache="on", epochs=1), tmp_path / "full")  # decodes the images
    assert not rows_by_entry()
    config = small(pictures, strategy="partial", cache="on", epochs=1)
    shares: list[float | None] = []

    def note_share(progress: dict[str, Any]) -> None:
        if progress["phase"] == "cache":
            shares.append(progress["share"])

    def run_until_next_chunk() -> bool:
        before = len(shares)
        with contextlib.suppress(RunInterrupted):
            run(config, tmp_path / "cut", on_progress=note_share, interrupted=lambda: len(shares) > before)
            return True
        return False

    attempts = 1
    while not run_until_next_chunk():
        attempts += 1
    assert attempts == 1 + 24 / 8 + 1 + 2  # after each chunk of train, val and test
    contents = rows_by_entry()
    assert len(contents) == 3
    assert not list(store.entries_folder().glob("*.part"))
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "other"))
    run(config, tmp_path / "whole")
    assert contents == rows_by_entry()


def test_without_room_the_frozen_part_is_computed_each_time(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once, with the variable that gives more room; the result is what it would have been."""
    monkeypatch.setenv("FINETUNE_CACHE_GB", "0")
    without = Done(small(pictures, strategy="head", cache="on"), tmp_path / "without")
    assert not entries()
    assert sum("no room for train before the head" in line and "FINETUNE_CACHE_GB" in line for line in without) == 1
    monkeypatch.setenv("FINETUNE_CACHE_GB", "1")
    room = Done(small(pictures, strategy="head", cache="on"), tmp_path / "with")
    assert entries()
    assert without.history[-1]["train/loss"] == pytest.approx(room.history[-1]["train/loss"], rel=3e-3)


def test_a_cache_that_can_not_be_written_ends_no_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file lies where the folder should be."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file"))
    done = Done(small(pictures, strategy="head", cache="on"), tmp_path / "run")
    assert [line for line in done if line.startswith("cache: can't be")]
    assert done.summary["state"] == "finished"


def test_want_of_memory_while_a_cache_is_filled_takes_smaller_pieces(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is filled all the same, and gives the same but for rounding; where none fits, the run says so."""
    plain = Done(small(pictures, strategy="partial", cache="on"), tmp_path / "plain")
    shutil.rmtree(store.entries_folder())
    true_run, most = FrozenPrefix.run, 5

    def needy(self: FrozenPrefix, hidden: torch.Tensor, start: int, cut: int) -> torch.Tensor:
        if start < cut and len(hidden) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return true_run(self, hidden, start, cut)

    monkeypatch.setattr(FrozenPrefix, "run", needy)
    pieces = Done(small(pictures, strategy="partial", cache="on"), tmp_path / "pieces")
    smaller = [line for line in pieces if "out of memory" in line]
    assert len(smaller) == 2  # 16, 8, and 4 from there on
    assert smaller[1].endswith(": continues with 4 images at a time")
    assert entries()
    assert all(row["cached_share"] == plain.history[0]["cached_share"] > 0 for row in pieces.history)
    assert pieces.history[0]["train/loss"] == pytest.approx(plain.history[0]["train/loss"], rel=5e-3)
    shutil.rmtree(store.entries_folder())
    most = 0
    with pytest.raises(TrainingError, match=r"out of memory .*, even with \d images? at a time. Lower image_px"):
        Done(small(pictures, strategy="partial", cache="on"), tmp_path / "never")


def test_activations_beyond_float16_are_kept_in_float32(pictures: Path, tmp_path: Path) -> None:
    """And not as infinity."""
    from finetune.models.classifier import build_network

    torch.manual_seed(5)
    network = build_network("squeezenet1_1", 32)
    nn.init.constant_(network.features[-1].expand3x3.bias, 1e5)
    torch.save(network.state_dict(), tmp_path / "large.pth")
    config = small(pictures, strategy="head", weights=str(tmp_path / "large.pth"), cache="on")
    done = Done(config, tmp_path / "run")
    assert {about["type"] for about in entries()} == {"float32"}
    assert [line for line in done if "do not fit into float16" in line]
    again = Done(small(pictures, **{**config.model_dump(), "seed": 1, "data": str(pictures)}), tmp_path / "again")
    assert not [line for line in again if "do not fit into float16" in line]


def test_other_weights_pictures_sizes_and_networks_have_entries_of_their_own(pictures: Path, tmp_path: Path) -> None:
    """Nothing can be taken for what it is not."""
    seen = set()
    changes: list[dict[str, Any]] = [{}, {"seed": 1}, {"image_px": 40}, {"backbone": "squeezenet1_0"}]
    for number, change in enumerate(changes):
        Done(small(pictures, strategy="head", epochs=1, cache="on", **change), tmp_path / str(number))
        now = {path.name for path in store.entries_folder().glob("activations-*") if path.is_dir()}
        assert len(now - seen) == 3  # one view of train, val, test
        seen = now
    next(pictures.rglob("*.png")).unlink()
    preflight.data_fingerprint.cache_clear()
    preflight._load_train_share.cache_clear()
    preflight._load_splits.cache_clear()
    Done(small(pictures, strategy="head", epochs=1, cache="on"), tmp_path / "fewer")
    assert len([path for path in store.entries_folder().glob("activations-*") if path.is_dir()]) == len(seen) + 3


@pytest.mark.parametrize("kind", ["activations", "pictures"])
def test_a_flipped_bit_in_the_cache_is_found_and_said_and_changes_no_result(
    kind: str, pictures: Path, tmp_path: Path
) -> None:
    """In each file of the first entry, rows and what is said of them."""
    config = small(pictures, strategy="partial", cache="on", epochs=1)
    whole = Done(config, tmp_path / "whole")
    for path in sorted(min(store.entries_folder().glob(f"{kind}-*/")).iterdir()):
        flip(path, random.Random(path.name))
        store._verified.clear()  # as in another process
        again = Done(config, tmp_path / path.name)
        damaged = [line for line in again if line.startswith("cache: ") and "is damaged" in line]
        assert len(damaged) == (1 if kind == "activations" else 0) or kind == "pictures"
        assert again.history[-1]["train/loss"] == whole.history[-1]["train/loss"]
        assert all(torch.equal(again.weights[name], value) for name, value in whole.weights.items())


def test_a_frozen_part_that_gives_no_numbers_is_told_as_such(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not as a rate that is too high."""
    true_run = FrozenPrefix.run

    def broken(self: FrozenPrefix, hidden: torch.Tensor, start: int, cut: int) -> torch.Tensor:
        return true_run(self, hidden, start, cut) * float("nan")

    monkeypatch.setattr(FrozenPrefix, "run", broken)
    with pytest.raises(TrainingError, match=r"activations before .* are not finite, at images 1 to 16 of "):
        Done(small(pictures, strategy="head", cache="on"), tmp_path / "run")


def test_a_damaged_entry_is_made_anew(pictures: Path, tmp_path: Path) -> None:
    """One whose file was cut short by hand."""
    config = small(pictures, strategy="head", cache="on", epochs=1)
    whole = Done(config, tmp_path / "whole")
    for path in store.entries_folder().glob("activations-*/rows.bin"):
        path.write_bytes(path.read_bytes()[:-100])
    again = Done(config, tmp_path / "again")
    assert again.history[0]["train/loss"] == whole.history[0]["train/loss"]

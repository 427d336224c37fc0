"""Unequal classes: the order that shows each as often, the loss that weighs each the same, and what they are for."""

import csv
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from finetune.cache import activation_entries
from finetune.config import Config, parse_config
from finetune.data.dataset import EpochBatchSampler
from finetune.data.sampling import balanced_order, class_weights
from finetune.errors import RunInterrupted
from finetune.resolve import resolve
from finetune.run.checkpoint import load_checkpoint
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.training.loss import batch_loss
from tests.support.images import write_picture
from tests.support.logs import each_log_line

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)
UNEQUAL = [0] * 17 + [1] * 5 + [3] * 2  # nothing of class 2


@given(LABELS, st.integers(0, 5), st.integers(0, 3))
def test_each_class_comes_as_often_in_every_epoch_and_over_all(labels: list[int], seed: int, epochs: int) -> None:
    """As many images as before; classes differ by one at most, and over epochs the ones do not pile up."""
    together = Counter[int]()
    for epoch in range(epochs + 1):
        order = balanced_order(labels, seed, epoch)
        assert len(order) == len(labels)
        found = Counter(labels[index] for index in order)
        together += found
        for counts in (found, together):
            assert max(counts.values()) - min(counts[label] for label in set(labels)) <= 1


@given(LABELS, st.integers(0, 5), st.integers(0, 3))
def test_no_picture_comes_again_before_all_of_its_class_have(labels: list[int], seed: int, epochs: int) -> None:
    """Up to the end of any epoch, images of a class have been used equally often, give or take once."""
    used = Counter[int](dict.fromkeys(range(len(labels)), 0))
    for epoch in range(epochs + 1):
        used.update(balanced_order(labels, seed, epoch))
        for label in set(labels):
            times = [used[index] for index, other in enumerate(labels) if other == label]
            assert max(times) - min(times) <= 1


def test_the_order_is_the_seeds_and_the_epochs_own() -> None:
    """The same again for the same two, whatever was drawn before; classes are mixed, not one after another."""
    order = balanced_order(UNEQUAL, 3, 7)
    assert order == balanced_order(UNEQUAL, 3, 7)
    assert order != balanced_order(UNEQUAL, 3, 6)
    assert order != balanced_order(UNEQUAL, 4, 7)
    classes = [UNEQUAL[index] for index in order]
    assert classes != sorted(classes)
    assert set(classes[:12]) == set(classes[12:]) == {0, 1, 3}
    first_of_rare = {next(index for index in balanced_order(UNEQUAL, 0, e) if UNEQUAL[index] == 3) for e in range(9)}
    assert first_of_rare == {22, 23}


def test_without_it_the_order_is_what_it_was() -> None:
    """Every image once, as runs of earlier versions had them."""
    batches = EpochBatchSampler(10, 4, seed=5)
    batches.epoch = 2
    assert list(batches) == [
        [("seed 5 epoch 2", index, None) for index in some] for some in ([6, 0, 2, 3], [1, 8, 5, 4], [9, 7])
    ]


def test_a_picture_that_comes_again_in_an_epoch_is_cut_anew() -> None:
    """Unless the draw has a name: then it is the one square that a cache may hold."""
    batches = EpochBatchSampler(len(UNEQUAL), 5, 0, UNEQUAL)
    keys = [key for batch in batches for key in batch]
    assert len(set(keys)) == len(keys) == len(UNEQUAL)
    assert {draw for draw, index, _ in keys if index == 22} == {
        "seed 0 epoch 0",
        *(f"seed 0 epoch 0 again {time}" for time in (1, 2, 3)),
    }
    batches.draw = "view 1"
    assert {draw for batch in batches for draw, *_ in batch} == {"view 1"}
    batches.first = 3
    assert [index for batch in batches for _, index, _ in batch] == [index for _, index, _ in keys[15:]]
    batches.first, batches.epoch = 0, 4
    assert [index for batch in batches for _, index, _ in batch] == balanced_order(UNEQUAL, 0, 4)


@given(LABELS)
def test_weights_make_classes_equal_and_pictures_weigh_one_in_the_mean(labels: list[int]) -> None:
    """As scikit-learn has them; a class that does not occur gets nothing."""
    weights = class_weights(labels, 6)
    counts = Counter(labels)
    assert sum(weights[label] for label in labels) == pytest.approx(len(labels))
    assert [weights[label] * counts[label] for label in counts] == pytest.approx(
        [len(labels) / len(counts)] * len(counts)
    )
    known = sorted(counts)
    assert [weights[label] for label in known] == pytest.approx(
        list(compute_class_weight("balanced", classes=np.array(known), y=labels))
    )
    assert not any(weights[label] for label in range(6) if label not in counts)


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 3, generator=generator), torch.tensor([0] * 9 + [1, 1, 2])


def test_a_picture_weighs_the_same_in_any_company() -> None:
    """Its smoothed loss times its class's weight, over the number of images; torch's own mean differs."""
    logits, labels = logits_and_labels()
    weights = torch.tensor([0.5, 2.0, 4.0])
    each = -(0.9 * functional.one_hot(labels, 3) + 0.1 / 3) * torch.log_softmax(logits, dim=1)
    loss = batch_loss(logits, labels, 0.1, weights)
    torch.testing.assert_close(loss, (weights[labels] * each.sum(dim=1)).sum() / 12)
    pieces = [batch_loss(logits[some], labels[some], 0.1, weights) for some in (slice(0, 7), slice(7, 12))]
    torch.testing.assert_close(loss, (7 * pieces[0] + 5 * pieces[1]) / 12)
    assert abs(float(functional.cross_entropy(logits, labels, weights, label_smoothing=0.1) - loss)) > 0.01


def test_equal_classes_have_the_plain_loss() -> None:
    """Weights of 1 change nothing, and none at all is torch's plain mean to the bit."""
    logits, labels = logits_and_labels()
    plain = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(batch_loss(logits, labels, 0.1), plain)
    torch.testing.assert_close(batch_loss(logits, labels, 0.1, torch.ones(3)), plain)


@pytest.fixture
def unequal(tmp_path: Path) -> Path:
    """Return a folder of 60 grey images and 6 warm ones that a few grey ones look like; val and test are equal."""
    root, seed = tmp_path / "unequal", 0
    for split, counts in {"train": (60, 6), "val": (12, 12), "test": (12, 12)}.items():
        for label, red, count in zip(("grey", "warm"), (120, 136), counts, strict=True):
            for number in range(count):
                seed += 1
                tint = 7 * seed % 29 - 14
                write_picture(root / split / label / f"{number}.png", (red + tint, 120, 240 - red - tint), seed)
    return root


def config(pictures: Path, **values: Any) -> Config:
    fixed = {"backbone": "squeezenet1_1", "weights": "none", "image_px": 24, "batch_size": 8, "device": "cpu"}
    return resolve(parse_config({**fixed, "data": str(pictures), **values}, "a test"))


class Done:
    """A run, done."""

    def __init__(self, asked: Config, folder: Path, **given: Any) -> None:
        self.log: list[str] = []
        with each_log_line(self.log.append):
            run(asked, folder, **given)
        self.history = [
            {name: value for name, value in row.items() if "second" not in name}
            for row in files.read_history(folder)[0]
        ]
        self.weights = load_checkpoint(folder / keys.LAST)["model"]
        self.summary = documents.read_json(folder / keys.SUMMARY) or {}


def test_rare_classes_are_found_once_classes_are_balanced(unequal: Path, tmp_path: Path) -> None:
    """With ten times as many images of one class, a network names nothing else; either remedy makes it look."""
    asked = {"strategy": "head", "lr": 1e-2, "epochs": 6, "augment": "none", "cache": "on"}
    done = {
        balance: Done(config(unequal, balance=balance, **asked), tmp_path / balance)
        for balance in ("none", "weights", "sampler")
    }
    plain = done["none"].summary
    assert plain["test/recall"]["warm"] < 0.2
    for balance in ("weights", "sampler"):
        summary = done[balance].summary
        assert summary["test/macro_f1"] > plain["test/macro_f1"] + 0.15
        assert summary["test/min_recall"] > plain["test/min_recall"] + 0.25
    line = "training images per class: from 6 of warm to 60 of grey; balance sampler"
    assert line in done["sampler"].log


def rounds(interruptions: int, asked: Config, folder: Path) -> Done:
    """Return a run that is stopped after each of its first steps and batches of val, and goes on each time."""
    left = interruptions

    def interrupted() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    while True:
        try:
            return Done(asked, folder, interrupted=interrupted)
        except RunInterrupted:
            continue


@pytest.mark.parametrize("balance", [pytest.param("weights", marks=pytest.mark.slow), "sampler"])
def test_an_interrupted_run_is_the_same_run_with_any_number_of_loader_processes(
    balance: str, unequal: Path, tmp_path: Path
) -> None:
    """Stopped after each step of both epochs, or fed by two processes: the same weights to the bit."""
    asked = {"strategy": "full", "balance": balance, "epochs": 2, "lr": 3e-3, "batch_size": 16}
    whole = Done(config(unequal, loader_workers=0, **asked), tmp_path / "whole")
    again = rounds(12, config(unequal, loader_workers=0, **asked), tmp_path / "again")
    fed = Done(config(unequal, loader_workers=2, **asked), tmp_path / "fed")
    for other in (again, fed):
        assert other.history == whole.history
        assert all(torch.equal(other.weights[name], value) for name, value in whole.weights.items())


@pytest.mark.parametrize("balance", ["weights", "sampler"])
@pytest.mark.parametrize("strategy", ["head", "gradual"])
def test_cached_or_not_the_run_is_the_same(
    strategy: str, balance: str, unequal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations are read by position, images several times in an epoch; losses differ by rounding alone."""
    monkeypatch.setattr(activation_entries, "STORED", np.float32)
    asked = {"strategy": strategy, "balance": balance, "epochs": 3, "lr": 3e-3, "views": 2}
    cached, plain = (Done(config(unequal, cache=cache, **asked), tmp_path / cache) for cache in ("on", "off"))
    assert any("cache: train view" in line for line in cached.log)
    for row, other in zip(cached.history, plain.history, strict=True):
        assert row["train/loss"] == pytest.approx(other["train/loss"], rel=1e-3)
        assert row["val/loss"] == pytest.approx(other["val/loss"], rel=1e-3)


def test_val_and_test_are_measured_without_weights(unequal: Path, tmp_path: Path) -> None:
    """The loss of the test split is the plain mean over its predictions, of the val split that over its images."""
    done = Done(config(unequal, strategy="head", balance="weights", epochs=1), tmp_path / "run")
    with (tmp_path / "run" / keys.PREDICTIONS).open() as file:
        rights = [float(row[keys.PROBABILITY + row["label"]]) for row in csv.DictReader(file)]
    assert done.summary["test/loss"] == pytest.approx(-sum(map(math.log, rights)) / len(rights), rel=1e-4)
    row = done.history[0]
    assert row["val/loss"] < 1.2  # near log 2; the rare class's weight is 5.5
    assert row["train/loss"] != pytest.approx(row["val/loss"], rel=1e-3)


def test_numbers_by_class_are_those_of_the_predictions(unequal: Path, tmp_path: Path) -> None:
    """On test as scikit-learn has them; on val, which has the same images here, the same at the best epoch."""
    shutil.rmtree(unequal / "val")
    shutil.copytree(unequal / "test", unequal / "val")
    asked = {"strategy": "head", "balance": "sampler", "lr": 1e-2, "epochs": 3, "augment": "none"}
    done = Done(config(unequal, **asked), tmp_path / "run")
    with (tmp_path / "run" / keys.PREDICTIONS).open() as file:
        rows = list(csv.DictReader(file))
    labels, named = ([row[column] for row in rows] for column in ("label", "prediction"))
    recalls = recall_score(labels, named, labels=["grey", "warm"], average=None)
    summary, best = done.summary, done.history[done.summary["best/epoch"] - 1]
    assert summary["test/recall"] == {"grey": recalls[0], "warm": recalls[1]}
    assert summary["test/min_recall"] == min(recalls) == best["val/min_recall"]
    assert summary["test/balanced_accuracy"] == pytest.approx(sum(recalls) / 2)
    macro = f1_score(labels, named, average="macro")
    assert summary["test/macro_f1"] == pytest.approx(macro)
    assert summary["best/val_macro_f1"] == best["val/macro_f1"] == pytest.approx(macro)
    assert len({*recalls, macro, summary["test/accuracy"]}) > 2  # else the one could pass for the other
    worst = min(summary["test/recall"], key=summary["test/recall"].__getitem__)
    assert done.log[-1].endswith(f"macro-F1 {macro:.1%}, lowest recall {min(recalls):.1%} ({worst})")

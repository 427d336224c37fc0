"""Parts of the training images: stratified, one inside the other, and nothing else changed."""

from pathlib import Path

import pytest

from finetune.cache.reuse import shared_activation_uses
from finetune.config import parse_config
from finetune.data.sampling import subsample_train
from finetune.data.splits import find_splits
from finetune.errors import ConfigError
from finetune.run.preflight import load_splits
from finetune.run.run import run
from finetune.rundir import files, keys
from tests.support.images import COLOURS, write_folder
from tests.support.small_runs import small


def test_a_part_is_stratified_and_lies_within_larger_ones(tmp_path: Path) -> None:
    """A tenth, a third, a half of 20 images a class; val and test are the same; the sentence has the numbers."""
    whole = find_splits(write_folder(tmp_path, {"train": 20, "val": 4, "test": 4}), 0)
    before: set[str] = set()
    for share, each in ((0.1, 2), (0.3, 6), (0.5, 10), (1.0, 20)):
        part = subsample_train(whole, share, 0)
        assert [sum(picture.label == label for picture in part.train) for label in range(3)] == [each] * 3
        assert (part.val, part.test, part.classes) == (whole.val, whole.test, whole.classes)
        paths = {picture.path for picture in part.train}
        assert before <= paths
        before = paths
    assert (
        subsample_train(whole, 0.1, 0).notes[-1] == "of the 60 training images, 6 train (train_share 0.1), stratified"
    )


def test_another_split_seed_draws_others_and_no_class_is_lost(tmp_path: Path) -> None:
    """However small the share."""
    whole = find_splits(write_folder(tmp_path, {"train": 20, "val": 4, "test": 4}), 0)
    assert subsample_train(whole, 0.3, 0).train != subsample_train(whole, 0.3, 1).train
    assert [picture.label for picture in subsample_train(whole, 0.001, 0).train] == list(range(len(COLOURS)))


def test_a_run_trains_on_its_part_and_tests_on_all(pictures: Path, tmp_path: Path) -> None:
    """The run's own record of splits and numbers says so."""
    run(small(pictures, strategy="head", epochs=1, train_share=0.5), tmp_path / "run")
    provenance = files.read_config(tmp_path / "run")["provenance"]
    whole = load_splits(small(pictures))
    assert provenance["splits"]["train"] == len(whole.train) // 2
    assert provenance["splits"]["test"] == len(whole.test)
    rows = (tmp_path / "run" / keys.SPLITS).read_text().splitlines()
    assert sum(row.endswith(",train") for row in rows) == len(whole.train) // 2


def test_runs_on_other_parts_share_val_and_test_alone() -> None:
    """What a cache holds of training images is of these images."""
    fields = {"strategy": "head", "epochs": 4, "unfreeze": [[0, 0]], "views": 2}
    configs = [parse_config({**fields, "train_share": share}, "a test") for share in (0.5, 1.0)]
    alone, both = (shared_activation_uses(configs[0], peers, 10) for peers in (configs[:1], configs))
    assert all(both[need] == alone[need] * (2 if need.view is None else 1) for need in alone)
    assert any(need.view is not None for need in alone)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_is_a_fraction(share: float) -> None:
    """More than all there are can't train."""
    with pytest.raises(ConfigError, match="train_share"):
        parse_config({"train_share": share}, "a test")

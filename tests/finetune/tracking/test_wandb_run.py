"""What a W&B run is told of a run directory: which runs belong together, and how many numbers it gets."""

from typing import Any

from finetune.config import parse_config, to_dict
from finetune.resolve import resolve
from finetune.tracking.wandb_run import MAX_RECALLS, group_of, summary_to_send


def fields(**values: Any) -> dict[str, Any]:
    return to_dict(resolve(parse_config({"strategy": "partial", "lr": 0.003, **values}, "a test")))


def test_a_group_is_what_differs_in_seed_or_fold_alone() -> None:
    """Runs that earlier versions sent had no such fields as balance and folds, and have the same group."""
    group = group_of(fields(), {"weights_hash": "w"})
    assert group == group_of(fields(seed=3, device="cpu"), {"weights_hash": "w"})
    earlier = {
        name: value
        for name, value in fields().items()
        if name not in ("erasing", "mixup", "cutmix", "balance", "folds", "fold")
    }
    assert group == group_of(earlier, {"weights_hash": "w"})
    folds = group_of(fields(folds=5, fold=0), {"weights_hash": "w"})
    assert folds == group_of(fields(folds=5, fold=4, seed=1), {"weights_hash": "w"}) != group
    assert group_of(fields(balance="sampler"), {"weights_hash": "w"}) != group


def test_thousands_of_classes_are_not_thousands_of_metrics() -> None:
    """They would slow down all of the project's pages; the file has them."""
    few, many = ({f"class {number}": 0.5 for number in range(count)} for count in (MAX_RECALLS, MAX_RECALLS + 1))
    assert summary_to_send({"test/accuracy": 0.5, "test/recall": few})["test/recall"] == few
    assert summary_to_send({"test/accuracy": 0.5, "test/recall": many}) == {"test/accuracy": 0.5}
    assert summary_to_send({"test/accuracy": 0.5}) == {"test/accuracy": 0.5}

"""The best epoch, and what a search is told while a run goes on."""

from typing import Any

from finetune.rundir.best_epoch import add_best_so_far, best_row
from finetune.sweep import search

ACCURACIES = [0.5, 0.7, 0.7, 0.6, 0.8]
LOSSES = [1.0, 0.9, 0.8, 0.7, 0.6]


def rows() -> list[dict[str, Any]]:
    """Return five epochs."""
    return [
        {"epoch": epoch, "val/accuracy": accuracy, "val/loss": loss}
        for epoch, (accuracy, loss) in enumerate(zip(ACCURACIES, LOSSES, strict=True), start=1)
    ]


def test_the_lower_loss_decides_between_equal_accuracies() -> None:
    """Epochs 2 and 3 are equal but for the loss; the earlier one wins where that is equal too."""
    assert best_row(rows()[:4])["epoch"] == 3
    assert best_row([{**row, "val/loss": 1.0} for row in rows()[:4]])["epoch"] == 2


def test_rows_carry_the_best_so_far() -> None:
    """Under the names of the summary, so that a sweep ranks by it."""
    shown = add_best_so_far(rows(), [(0, 0.5)])
    assert [row["best/epoch"] for row in shown] == [1, 2, 3, 3, 5]
    assert [row["best/val_accuracy"] for row in shown] == [0.5, 0.7, 0.7, 0.7, 0.8]
    assert [row["best/val_loss"] for row in shown] == [1.0, 0.9, 0.8, 0.8, 0.6]
    assert [row["val/accuracy"] for row in shown] == ACCURACIES


def test_rows_before_the_last_unfreeze_do_not_count_for_a_search() -> None:
    """The first row that counts is that of the first epoch in which the last step trains."""
    shown = add_best_so_far(rows(), [(0, 0.0), (2, 1.0)])
    assert ["best/val_accuracy" in row for row in shown] == [False, False, True, True, True]
    assert shown[2]["best/epoch"] == 3


def test_w_and_bs_own_hyperband_counts_from_there() -> None:
    """A run that lags far behind is stopped only once `min_iter` epochs of its last step are there."""
    spec = {
        "method": "grid",
        "metric": {"name": "best/val_accuracy", "goal": "maximize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 2},
        "parameters": {"lr": {"values": [1, 2]}},
    }
    good = [{"epoch": epoch, "val/accuracy": 0.9, "val/loss": 0.1} for epoch in range(1, 9)]
    others = [
        search.ObservedPoint(name, {"lr": 1}, "finished", {}, add_best_so_far(good, [(0, 1.0)])) for name in "abc"
    ]
    bad = [{"epoch": epoch, "val/accuracy": 0.1, "val/loss": 2.0} for epoch in range(1, 9)]

    def stopped_after(epochs: int) -> bool:
        slow = search.ObservedPoint(
            "slow", {"lr": 2}, "running", {}, add_best_so_far(bad[:epochs], [(0, 0.0), (4, 1.0)])
        )
        return search.points_to_stop(spec, [*others, slow]) == ["slow"]

    assert [stopped_after(epochs) for epochs in range(1, 9)] == [False] * 5 + [True] * 3

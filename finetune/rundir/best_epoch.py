"""The best epoch of a run, and the best-so-far columns that a search ranks running runs by."""

from collections.abc import Iterable
from typing import Any

EpochMetrics = dict[str, Any]  # one epoch, keys.HISTORY_KEYS

_KEYS = {
    "best/epoch": "epoch",
    "best/val_accuracy": "val/accuracy",
    "best/val_loss": "val/loss",
    "best/val_macro_f1": "val/macro_f1",
}


def best_row(history: list[EpochMetrics]) -> EpochMetrics:
    """Return the epoch with the best val accuracy; the lower val loss decides between equals, then the earlier one."""
    return max(history, key=lambda row: (row["val/accuracy"], -row.get("val/loss", 0.0), -row["epoch"]))


def add_best_so_far(history: list[EpochMetrics], schedule: Iterable[tuple[int, float]]) -> list[EpochMetrics]:
    """Return the rows, each with the best epoch up to it under the summary's names, such as `best/val_accuracy`.

    Rows before the schedule's last step has trained for an epoch do not get them. Hyperband compares runs by the rows
    that have the sweep's metric, here and on W&B's server; so it can't stop a run before its schedule has unfrozen
    all that it will, and its `min_iter` counts epochs from then on.

    Args:
        schedule: pairs (epochs finished, share that trains), as in a resolved config.
    """
    last = list(schedule)[-1][0]
    rows = []
    best: EpochMetrics | None = None
    for row in history:
        if "val/accuracy" not in row:  # written by another program
            rows.append(dict(row))
            continue
        best = row if best is None else best_row([best, row])
        best_so_far = {name: best[key] for name, key in _KEYS.items() if key in best}
        rows.append({**row, **best_so_far} if row["epoch"] > last else dict(row))
    return rows

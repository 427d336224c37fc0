"""Which epoch of a run is the best, and what a search may know of a run while it goes on."""

from collections.abc import Iterable
from typing import Any

EpochMetrics = dict[str, Any]  # one epoch, record.HISTORY_KEYS

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
    that have the sweep's metric, here and on W&B's server; so it can't stop a schedule before what it is for has
    begun, and its `min_iter` counts epochs from then on.

    Args:
        schedule: pairs (epochs finished, share that trains), as in a resolved config.
    """
    last = list(schedule)[-1][0]
    rows = []
    best: EpochMetrics | None = None
    for row in history:
        if "val/accuracy" not in row:  # of another program's making; nothing can be said of it
            rows.append(dict(row))
            continue
        best = row if best is None else best_row([best, row])
        known = {name: best[key] for name, key in _KEYS.items() if key in best}
        rows.append({**row, **known} if row["epoch"] > last else dict(row))
    return rows

"""What the API tells of a run's rows: all, a sample, the names in them."""

import json
from typing import Any

from tests.support.wandb_server.store import Run, dump, plain

Node = dict[str, Any]
TAIL = 1  # lines that a resumed run is told


def tail(lines: dict[int, Any]) -> str:
    """Return the last lines of a stream, as a resumed run is told them."""
    return json.dumps([dump(lines[index]) for index in sorted(lines)[-TAIL:]])


def history_keys(run: Run) -> Node | None:
    """Return what was logged under which name, and the last step; nothing without rows."""
    if not run.lines:
        return None
    keys: dict[str, dict[str, int]] = {}
    for row in run.history:
        for name, value in row.items():
            kind = {str: "string", dict: "map", list: "list", bool: "bool"}.get(type(value), "number")
            counts = keys.setdefault(name, {})
            counts[kind] = counts.get(kind, 0) + 1
    found = {
        name: {"typeCounts": [{"type": kind, "count": count} for kind, count in counts.items()]}
        for name, counts in keys.items()
    }
    return {"keys": found, "lastStep": max(row.get("_step", 0) for row in run.history), "sets": []}


def _sample(rows: list[Any], samples: int | None) -> list[Any]:
    """Return at most so many of the rows, evenly spread, the first and the last among them."""
    if not samples or len(rows) <= samples:
        return rows
    return [rows[round(index * (len(rows) - 1) / max(samples - 1, 1))] for index in range(samples)]


def rows(rows: list[Node], arguments: Node) -> list[Node]:
    """Return rows with minStep <= _step < maxStep."""
    low, high = arguments.get("minStep"), arguments.get("maxStep")
    wanted = [
        row
        for row in rows
        if (low is None or row.get("_step", 0) >= low) and (high is None or row.get("_step", 0) < high)
    ]
    return _sample(wanted, arguments.get("samples"))


def sampled(run: Run, specs: Any) -> list[list[Node]]:
    """Return the rows that have all keys of a spec, for each spec."""
    texts = specs if isinstance(specs, list) else [specs or "{}"]
    return [_sampled_one(run, json.loads(text) if isinstance(text, str) else text) for text in texts]


def _sampled_one(run: Run, spec: Node) -> list[Node]:
    keys, low, high = spec.get("keys") or [], spec.get("minStep"), spec.get("maxStep")
    rows = [
        {key: plain(row[key]) for key in keys}
        for row in run.history
        if keys
        and all(key in row for key in keys)
        and (low is None or row.get("_step", 0) >= low)
        and (high is None or row.get("_step", 0) <= high)
    ]
    return _sample(rows, spec.get("samples"))

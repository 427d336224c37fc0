"""Lists as the API gives them: filtered, ordered, a page at a time."""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.support.wandb_server.store import Run, stamp

FIELDS: dict[str, Callable[[Run], Any]] = {
    "sweep": lambda run: run.sweep,
    "name": lambda run: run.id,
    "state": lambda run: run.state,
    "displayName": lambda run: run.display_name,
    "display_name": lambda run: run.display_name,
    "jobType": lambda run: run.job_type,
    "job_type": lambda run: run.job_type,
    "group": lambda run: run.group,
    "tags": lambda run: run.tags,
    "createdAt": lambda run: stamp(run.created),
    "created_at": lambda run: stamp(run.created),
    "heartbeatAt": lambda run: run.heartbeat,
    "heartbeat_at": lambda run: run.heartbeat,
}


def value_of(run: Run, path: str) -> Any:
    """Return what a filter or an order means by this name.

    Raises:
        KeyError: If it means nothing here.
    """
    if path in FIELDS:
        return FIELDS[path](run)
    section, _, rest = path.partition(".")
    values = {"config": run.config, "summary_metrics": run.summary, "summaryMetrics": run.summary}.get(section)
    if values is None:
        raise KeyError(f"runs can't be filtered or ordered by {path!r} here; known are {', '.join(FIELDS)}, config.*")
    if rest in values:
        return values[rest]
    rest = rest.removesuffix(".value")
    if rest in values:
        return values[rest]
    found: Any = values
    for name in rest.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _same(value: Any, wanted: Any) -> bool:
    return wanted in value if isinstance(value, list) and not isinstance(wanted, list) else value == wanted


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def safe(value: Any, bound: Any) -> bool:
        try:
            return value is not None and compare(value, bound)
        except TypeError:
            return False

    return safe


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _same,
    "$ne": lambda value, wanted: not _same(value, wanted),
    "$in": lambda value, wanted: any(_same(value, item) for item in wanted),
    "$nin": lambda value, wanted: not any(_same(value, item) for item in wanted),
    "$gt": _ordered(lambda value, bound: value > bound),
    "$gte": _ordered(lambda value, bound: value >= bound),
    "$lt": _ordered(lambda value, bound: value < bound),
    "$lte": _ordered(lambda value, bound: value <= bound),
    "$exists": lambda value, wanted: (value is not None) == bool(wanted),
    "$regex": lambda value, pattern: isinstance(value, str) and re.search(pattern, value) is not None,
}


def matches(run: Run, wanted: dict[str, Any]) -> bool:
    """Say whether the run fits a filter, MongoDB's way.

    Raises:
        KeyError: On an unknown field or operator.
    """
    return all(_fits(run, name, condition) for name, condition in wanted.items())


def _fits(run: Run, name: str, condition: Any) -> bool:
    if name == "$and":
        return all(matches(run, item) for item in condition)
    if name == "$or":
        return any(matches(run, item) for item in condition)
    if name in ("$not", "$nor"):
        return not any(matches(run, item) for item in (condition if isinstance(condition, list) else [condition]))
    value = value_of(run, name)
    if isinstance(condition, dict) and any(key.startswith("$") for key in condition):
        for operator, operand in condition.items():
            if operator not in OPERATORS:
                raise KeyError(f"the operator {operator!r} is not known here; known are {', '.join(OPERATORS)}")
            if not OPERATORS[operator](value, operand):
                return False
        return True
    return _same(value, condition)


def order_by(runs: Iterable[Run], order: str | None) -> list[Run]:
    """Return the runs ordered as `+created_at`, `-summary_metrics.loss`, ...; those without the value come last."""
    ordered = list(runs)
    for term in reversed((order or "+created_at").split(",")):
        name, down = term.strip().lstrip("+-"), term.strip().startswith("-")
        if name in ("created_at", "createdAt"):
            ordered.sort(key=lambda run: run.created, reverse=down)
            continue
        values = {id(run): value_of(run, name) for run in ordered}
        present = [run for run in ordered if values[id(run)] is not None]
        numeric = all(isinstance(values[id(run)], int | float) for run in present)
        present.sort(key=lambda run: values[id(run)] if numeric else str(values[id(run)]), reverse=down)
        ordered = present + [run for run in ordered if values[id(run)] is None]
    return ordered


def connection(
    items: Sequence[Any], node: Callable[[Any], Any], key: Callable[[Any], str], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Return one page: `first` items behind the cursor `after`.

    A cursor names an item and its place, so that a page stays where it is when items come or go.
    """
    start = 0
    if arguments.get("after"):
        place, name = _read_cursor(arguments["after"])
        start = next((index + 1 for index, item in enumerate(items) if key(item) == name), place)
    first = arguments.get("first")
    end = len(items) if first is None else start + first
    edges = [
        {"cursor": _cursor(start + index, key(item)), "node": node(item)} for index, item in enumerate(items[start:end])
    ]
    return {
        "totalCount": len(items),
        "edges": edges,
        "pageInfo": {
            "__typename": "PageInfo",
            "endCursor": edges[-1]["cursor"] if edges else None,
            "hasNextPage": end < len(items),
        },
    }


def _cursor(place: int, name: str) -> str:
    return base64.b64encode(f"{place}:{name}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        place, _, name = base64.b64decode(cursor, validate=True).decode().partition(":")
        return int(place), name
    except (binascii.Error, ValueError) as error:
        raise KeyError(f"{cursor!r} is not a cursor of this server") from error

"""report.html: one file that opens offline, with all pictures in it."""

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.figures.style import colour
from analysis.formatting import NONE, format_duration, percent
from analysis.report.columns import Column, columns, cost_columns, pair_columns
from analysis.report.sentences import BudgetOption
from analysis.sources.sweep import Sweep
from analysis.tables.claims import Claim
from analysis.tables.comparison import Comparison
from analysis.tables.metadata import left_out_groups
from finetune.system.atomic import write_atomic
from finetune.system.documents import read_json
from finetune.system.output import escape_control_characters
from finetune.system.redaction import without_login

TEMPLATE, SCRIPT = "report.html.j2", "report.js"


@dataclass(frozen=True)
class PageFacts:
    """What stands at the top of the report, and the claims.

    Attributes:
        card: heading -> fact.
        steps: what to use for how much time.
        sizes: what to use for how many training pictures, where the sweep has several (see `sizes.size_record`).
        setting: what sets this sweep apart from the one that the claims were made on.
    """

    card: dict[str, str]
    steps: list[BudgetOption]
    sizes: list[dict[str, Any]]
    claims: list[Claim]
    setting: str


@dataclass(frozen=True)
class EmbeddedImages:
    """The figures and grids as the template needs them (see `picture`), and which run the grids show."""

    figures: list[dict[str, str]]
    grids: list[dict[str, str]]
    best: str


def write_html(
    path: Path,
    sweep: Sweep,
    comparison: Comparison,
    content: dict[str, Any],
    facts: PageFacts,
    pictures: EmbeddedImages,
    commands: list[str],
) -> None:
    """Write the report. Everything that runs or users named is escaped by the template."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: escape_control_characters(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    shown = columns(comparison.target)
    # A page that may run one script, known by its hash, runs no other, whatever a run was called.
    script = "\n" + (Path(__file__).parent / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template(TEMPLATE).render(
        report=content,
        table=_table(comparison.strategies, shown),
        costs=_table(comparison.strategies, cost_columns()),
        pairs=_table(comparison.pairs, pair_columns()) if len(comparison.pairs) else None,
        recipes=_table(comparison.recipes, _of_recipes(shown)),
        runs=_runs(sweep, comparison, path.parent),
        facts=facts,
        pictures=pictures,
        left_out=left_out_groups(sweep),
        commands=commands,
        sweep_text=sweep.text,
        finished=len(sweep.finished),
        started=len(sweep.runs),
        script=Markup(script),
        script_hash=digest,
    )
    write_atomic(path, text)


def _of_recipes(shown: list[Column]) -> list[Column]:
    """Return the columns for the table of all recipes: what val says, and what it took.

    Test is left out: looking at it for recipes that val did not choose is how a table gets too good.
    """
    kept = ("Seeds", "Val", "Train time", "Compute saved")
    recipe = Column("Recipe", lambda row: f"{row['recipe']}{' ← chosen' if row['chosen'] else ''}", number=False)
    return [shown[0], recipe, *(column for column in shown if column.heading in kept)]


def _table(table: pd.DataFrame, shown: list[Column]) -> dict[str, Any]:
    """Return a table of text with what the template needs to set it."""
    chosen = table["chosen"] if "chosen" in table else pd.Series(False, index=table.index)
    return {
        "columns": shown,
        "rows": [
            {
                "colour": colour(str(row["strategy"])),
                "chosen": bool(marked),
                "cells": [
                    (column.cell(row), _sort_value(row[column.sort]) if column.sort else None) for column in shown
                ],
            }
            for marked, (_, row) in zip(chosen, table.iterrows(), strict=True)
        ],
    }


def _sort_value(value: Any) -> str:
    """Return what a cell is sorted by; nothing where there is nothing to tell."""
    return "" if value is None or pd.isna(value) else f"{float(value):.8g}"


def _runs(sweep: Sweep, comparison: Comparison, out: Path) -> list[dict[str, Any]]:
    """Return every finished run: its links, and (text, what it is sorted by) of each cell."""
    names = dict(zip(comparison.recipes["key"], comparison.recipes["recipe"], strict=True))
    chosen = set(comparison.strategies["key"])
    order = {key: index for index, key in enumerate(comparison.recipes["key"])}
    runs = sweep.finished.assign(order=sweep.finished["recipe"].map(order))
    runs = runs.sort_values(["order", "seed", "fold", "run"])
    return [
        {
            "name": str(run["run"]),
            "folder": _link(Path(run["path"]), out),
            "page": _page(Path(run["path"])),
            "colour": colour(str(run["strategy"])),
            "cells": [
                (str(run["strategy"]), None),
                (names[run["recipe"]], None),
                (
                    (NONE if pd.isna(run["seed"]) else f"{run['seed']:.0f}")
                    + ("" if pd.isna(run["fold"]) else f", fold {run['fold']:.0f}"),
                    None,
                ),
                (percent(run["best/val_accuracy"]), _sort_value(run["best/val_accuracy"])),
                (percent(run["test/accuracy"]) if run["recipe"] in chosen else NONE, _tested(run, chosen)),
                (format_duration(run["train_seconds"]), _sort_value(run["train_seconds"])),
            ],
        }
        for _, run in runs.iterrows()
    ]


def _tested(run: "pd.Series[Any]", chosen: set[str]) -> str:
    return _sort_value(run["test/accuracy"]) if run["recipe"] in chosen else ""


def _link(run_dir: Path, out: Path) -> str:
    """Return the address of a run's directory from the report's folder, or "" where there is none (other drives)."""
    try:
        return quote(Path(os.path.relpath(run_dir.resolve(), out.resolve())).as_posix()) + "/"
    except ValueError:
        return ""


def _page(run_dir: Path) -> str:
    """Return the address of a run's page on W&B, which its mirror noted, or ""."""
    for file in sorted(run_dir.glob("wandb-*.json")):
        try:
            url = without_login(str((read_json(file) or {}).get("url") or ""))
        except (OSError, ValueError):
            continue
        if url.startswith(("https://", "http://")):
            return url
    return ""

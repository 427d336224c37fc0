"""report.html: one file that opens offline, with all images in it."""

import base64
import dataclasses
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from analysis.figures.specs import FigureSpec
from analysis.figures.style import colour
from analysis.formatting import NONE, format_duration, percent
from analysis.report import methods
from analysis.report.columns import (
    Column,
    comparison_columns,
    cost_columns,
    detail_columns,
    network_columns,
    pair_columns,
)
from analysis.report.shell import recorded_command, shell_command
from analysis.tables.analysis import Analysis, Options
from analysis.tables.metadata import left_out_groups, sweep_question
from finetune.system.documents import read_json
from finetune.system.output import escape_control_characters
from finetune.system.redaction import without_login

HERE = Path(__file__).parent
TEMPLATE, SCRIPT, STYLE = "report.html.j2", "report.js", "report.css"
JPEG_QUALITY = 88
FOREST = "differences"  # the figure on the first screen
RECIPE_HEADINGS = ("Val", "Train time", "Compute saved")  # of all recipes


@dataclass(frozen=True)
class EmbeddedImage:
    """A drawn figure as the page needs it.

    Attributes:
        name: of its file, without suffix.
        src: the image as a data URI.
        alt, title, caption, notes: see `FigureSpec`.
    """

    name: str
    src: str
    alt: str
    title: str
    caption: str
    notes: tuple[str, ...]


def embed_image(png: Path, spec: FigureSpec, as_jpeg: bool = False) -> EmbeddedImage:
    """Return a drawn figure for the page. As JPEG, a figure full of photographs takes a tenth of the space."""
    content, kind = png.read_bytes(), "png"
    if as_jpeg:
        packed = io.BytesIO()
        with Image.open(png) as image:
            image.convert("RGB").save(packed, "JPEG", quality=JPEG_QUALITY)
        content, kind = packed.getvalue(), "jpeg"
    src = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return EmbeddedImage(png.stem, src, spec.alt, spec.title, spec.caption, spec.notes)


def report_page(
    analysis: Analysis,
    document: dict[str, Any],
    out: Path,
    figures: list[EmbeddedImage],
    grids: list[EmbeddedImage],
) -> str:
    """Return the page. The template escapes all text that comes from runs or users.

    Args:
        document: the content of report.json.
        out: the folder of the page, which links to runs are relative to.
    """
    comparison, shown = analysis.comparison, comparison_columns()
    pairs = comparison.pairs  # those with the candidate are shown; pairs.csv has all
    shown_pairs = pairs[(pairs["strategy"] == comparison.candidate) | (pairs["other"] == comparison.candidate)]
    # The page's policy allows the script with this hash and no other, whatever a run is called.
    script = "\n" + (HERE / SCRIPT).read_text(encoding="utf-8")
    template = _environment().get_template(TEMPLATE)
    return template.render(
        report=document,
        methods=methods,
        table=_table(comparison.arms, shown),
        details=_table(comparison.arms, detail_columns(comparison.target)),
        costs=_table(comparison.arms, cost_columns()),
        pairs=_table(shown_pairs, pair_columns()) if len(shown_pairs) else None,
        networks=_table(shown_pairs, network_columns()) if shown_pairs["mcnemar_p"].notna().any() else None,
        recipes=_table(comparison.recipes, _recipe_columns(shown)),
        runs=_runs(analysis, out),
        forest=next((figure for figure in figures if figure.name == FOREST), None),
        figures=[figure for figure in figures if figure.name != FOREST],
        question=sweep_question(analysis.sweep.text),
        contents=_contents(document, analysis),
        grids=grids,
        best_run=methods.best_run_sentence(analysis),
        left_out=left_out_groups(analysis.sweep),
        commands=_commands(analysis),
        sweep_text=analysis.sweep.text,
        finished=len(analysis.sweep.finished),
        started=len(analysis.sweep.runs),
        style=Markup("\n" + (HERE / STYLE).read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=lambda value: escape_control_characters(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _contents(document: dict[str, Any], analysis: Analysis) -> list[tuple[str, str]]:
    """Return (id, title) of the sections that the page has."""
    sections = [
        ("by-budget", "By budget", len(document["card"]["by_budget"]) > 1),
        ("by-size", "By training-set size", bool(document["card"]["by_size"])),
        ("comparison-of-arms", "Comparison", True),
        ("pairwise", "Pairwise comparisons", len(analysis.comparison.pairs) > 0),
        ("costs-of-arms", "Costs", True),
        ("claims", "Reference numbers", bool(document["claims"]["checked"])),
        ("figures", "Figures", True),
        ("predictions", "Predictions", True),
        ("all-recipes", "All recipes", True),
        ("all-runs", "Runs", True),
        ("reproduce", "Reproduce", True),
    ]
    return [(name, title) for name, title, is_there in sections if is_there]


def _commands(analysis: Analysis) -> list[str]:
    """Return the commands that make this report, train its best run, and predict with it."""
    best = analysis.best
    flags = ["--mix-data"] if analysis.sweep.mixed else []
    flags += _option_flags(analysis)
    train = recorded_command(best.get("provenance/command"))
    return [
        shell_command("python", "-m", "analysis", analysis.sweep.folder, *flags),
        *([train] if train else []),
        shell_command("python", "-m", "finetune.predict", best["path"], "IMAGES", "--csv", "predictions.csv"),
    ]


def _option_flags(analysis: Analysis) -> list[str]:
    """Return the flags of the options that differ from their defaults."""
    flags = []
    for field in dataclasses.fields(Options):
        value = getattr(analysis.options, field.name)
        if value != field.default:
            text = ",".join(value) if isinstance(value, tuple) else f"{value:g}"
            name = f"--{field.name.replace('_', '-')}"
            flags += [name] if value is True else [name, text]
    return flags


def _recipe_columns(shown: list[Column]) -> list[Column]:
    """Return the columns of the table of all recipes, without test accuracy: only the chosen recipes may show it."""
    recipe = Column("Recipe", lambda row: f"{row['recipe']}{' ← chosen' if row['chosen'] else ''}", number=False)
    return [shown[0], recipe, *(column for column in shown if column.heading in RECIPE_HEADINGS)]


def _table(table: pd.DataFrame, shown: list[Column]) -> dict[str, Any]:
    """Return a table of text as the template needs it."""
    chosen = table["chosen"] if "chosen" in table else pd.Series(False, index=table.index)
    return {
        "columns": shown,
        "rows": [
            {
                "colour": colour(str(row["arm"])) if "arm" in table else "",
                "chosen": bool(marked),
                "cells": [
                    (column.cell(row), _sort_value(row[column.sort]) if column.sort else None) for column in shown
                ],
            }
            for marked, (_, row) in zip(chosen, table.iterrows(), strict=True)
        ],
    }


def _sort_value(value: Any) -> str:
    """Return the number that a cell is sorted by; "" for a missing value."""
    return "" if value is None or pd.isna(value) else f"{float(value):.8g}"


def _runs(analysis: Analysis, out: Path) -> list[dict[str, Any]]:
    """Return every finished run: its links, and for each cell its text and the number that it is sorted by."""
    comparison, finished = analysis.comparison, analysis.sweep.finished
    names = dict(zip(comparison.recipes["key"], comparison.recipes["recipe"], strict=True))
    chosen = set(comparison.arms["key"])
    order = {key: index for index, key in enumerate(comparison.recipes["key"])}
    runs = finished.assign(order=finished["recipe"].map(order)).sort_values(["order", "seed", "fold", "run"])
    return [
        {
            "name": str(run["run"]),
            "folder": _link(Path(run["path"]), out),
            "page": _wandb_url(Path(run["path"])),
            "colour": colour(str(run["arm"])),
            "cells": [
                (str(run["arm"]), None),
                (names[run["recipe"]], None),
                (_replicate_text(run), None),
                (percent(run["best/val_accuracy"]), _sort_value(run["best/val_accuracy"])),
                (percent(run["test/accuracy"]), _sort_value(run["test/accuracy"]))
                if run["recipe"] in chosen
                else (NONE, ""),
                (format_duration(run["train_seconds"]), _sort_value(run["train_seconds"])),
            ],
        }
        for _, run in runs.iterrows()
    ]


def _replicate_text(run: "pd.Series[Any]") -> str:
    seed = NONE if pd.isna(run["seed"]) else f"{run['seed']:.0f}"
    return seed if pd.isna(run["fold"]) else f"{seed}, fold {run['fold']:.0f}"


def _link(run_dir: Path, out: Path) -> str:
    """Return the address of a run's directory relative to the report's folder; "" on another drive."""
    try:
        return quote(Path(os.path.relpath(run_dir.resolve(), out.resolve())).as_posix()) + "/"
    except ValueError:
        return ""


def _wandb_url(run_dir: Path) -> str:
    """Return the address of a run's page on W&B, as noted in its directory, or ""."""
    for file in sorted(run_dir.glob("wandb-*.json")):
        try:
            url = without_login(str((read_json(file) or {}).get("url") or ""))
        except (OSError, ValueError):
            continue
        if url.startswith(("https://", "http://")):
            return url
    return ""

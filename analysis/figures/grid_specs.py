"""The prediction grids of a report: which pictures each shows, of which run, and what is said of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import formatting
from analysis.drawn import digest, is_drawn
from analysis.errors import InputError
from analysis.figures import style
from analysis.figures.grid_selection import (
    Grid,
    choose_confident_errors,
    choose_differing,
    choose_images,
    choose_least_confident,
)
from analysis.figures.prediction_grid import draw_grid, find_images, save_grid
from analysis.sources.predictions import read_predictions
from analysis.sources.sweep import Sweep
from analysis.tables.comparison import Comparison, chosen_runs
from finetune.rundir.keys import ATTENTION, THUMBNAILS


@dataclass(frozen=True)
class GridSpec:
    """A grid before it is drawn.

    Attributes:
        name: of its file.
        grid: what it shows.
        runs: directories whose thumbnails it may use.
        root: the data folder, or None.
        alt: what it shows, for those who do not see it.
        archive: the file in a run's directory that its pictures are in.
    """

    name: str
    grid: Grid
    runs: tuple[Path, ...]
    root: Path | None
    title: str
    alt: str
    archive: str = THUMBNAILS


def grid_specs(
    sweep: Sweep,
    comparison: Comparison,
    best: "pd.Series[Any]",
    predictions: pd.DataFrame | None,
    data: dict[str, Any],
) -> list[GridSpec]:
    """Return the grids that there is something to show in.

    By class, where the network looked in these, confident errors, least confident, two strategies.

    Args:
        predictions: of the best run, or None where it has none.
        data: as `facts.data_facts` has it.
    """
    if predictions is None:
        return []
    run, classes = str(best["run"]), data["classes"]
    place: dict[str, Any] = {"runs": (Path(best["path"]),), "root": _root(best)}
    grid = choose_images(predictions, classes)
    shares = ", ".join(f"{name} {right} of {total}" for name, (right, total) in grid.recall.items())
    accuracy = f"{formatting.percent(predictions['correct'].mean())} of {len(predictions)} test pictures right"
    found = [
        GridSpec(
            "prediction_grid",
            grid,
            title=f"{run} on {data['name']}: {accuracy}",
            alt=f"Test pictures by class with predictions. Right by class: {shares}.",
            **place,
        )
    ]
    found += _attention(found[0], run)
    errors, unsure = choose_confident_errors(predictions), choose_least_confident(predictions)
    for name, chosen, title in (
        ("prediction_grid_confident_errors", errors, "Most confident errors"),
        ("prediction_grid_least_confident", unsure, "Least confident"),
    ):
        if chosen is not None:
            told = f"{title} of {run} on test"
            found.append(GridSpec(name, chosen, title=told, alt=f"{told}: {chosen.caption}", **place))
    return [*found, *_of_two(sweep, comparison, best, predictions)]


def _attention(by_class: GridSpec, run: str) -> list[GridSpec]:
    """Return the grid by class with what the network looked at, if that has been drawn (see finetune/attention.py)."""
    if not (by_class.runs[0] / ATTENTION).is_file():
        return []
    caption = (
        "The same pictures, their middle as the network sees it: coloured is what speaks for its answer (Grad-CAM)."
    )
    grid, title = replace(by_class.grid, caption=caption), f"Where {run} looked"
    name = "prediction_grid_attention"
    return [GridSpec(name, grid, by_class.runs, None, title, f"{title}: {caption}", ATTENTION)]


def _of_two(sweep: Sweep, comparison: Comparison, best: "pd.Series[Any]", predictions: pd.DataFrame) -> list[GridSpec]:
    """Return the grid of the best run against the best one of another strategy, the next by val."""
    others = chosen_runs(sweep, comparison).query("strategy != @best.strategy")
    others = others.sort_values(["best/val_accuracy", "best/val_loss", "run"], ascending=[False, True, True])
    for _, other in others.head(1).iterrows():
        try:
            theirs = read_predictions(Path(other["path"]))
        except InputError:
            return []
        names = (str(best["strategy"]), str(other["strategy"]))
        grid = choose_differing(predictions, theirs, names)
        if grid is None:
            return []
        title = f"Where {best['run']} and {other['run']} differ"
        runs = (Path(best["path"]), Path(other["path"]))
        return [GridSpec("prediction_grid_differences", grid, runs, _root(best), title, f"{title}: {grid.caption}")]
    return []


def _root(run: "pd.Series[Any]") -> Path | None:
    root = run.get("provenance/data_root")
    return Path(root) if isinstance(root, str) else None


def write(plan: GridSpec, path: Path) -> tuple[dict[str, str], list[str]]:
    """Write a grid, unless it is there; return what the report needs, and what is amiss with the pictures."""
    pictures: dict[str, Any] = {}
    for run in plan.runs:
        pictures = find_images(plan.grid, run, None, plan.archive) | pictures
    if len(pictures) < plan.grid.size and plan.root is not None:
        pictures = find_images(plan.grid, plan.runs[0], plan.root) | pictures
    key = digest(plan.grid, pictures, plan.title)
    if not is_drawn(path, key):
        save_grid(draw_grid(plan.grid, pictures, plan.title), path, key)
    shown = style.embedded_image(path, plan.alt, plan.title, plan.grid.caption, True)
    if len(pictures) == plan.grid.size or plan.name != "prediction_grid":
        return shown, []
    where = str(plan.runs[0] / THUMBNAILS) + (f" and below {plan.root}" if plan.root else "")
    return shown, [
        f"The prediction grid shows {len(pictures)} of {plan.grid.size} pictures; the others are not in {where}."
    ]

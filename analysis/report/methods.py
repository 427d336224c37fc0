"""How the numbers of a report were measured, in words. The page and the W&B report share these sentences."""

from typing import Any

import pandas as pd

from analysis.formatting import percent
from analysis.tables.analysis import Analysis

NETWORKS = (
    "Single runs, the best by val of each arm: test images that only one of the two networks classifies correctly, and "
    "McNemar's test (mid-p) of whether these two networks are equally accurate. It says nothing about other runs."
)
SYNTHETIC = "Synthetic data: images drawn by the program, not photographs."


def comparison_notes(kind: str) -> list[str]:
    """Return how the main table was measured.

    Args:
        kind: what the runs of one recipe differ in, see `Analysis.replicate`.
    """
    return [
        f"Recipes (by mean val accuracy over {kind}s) and checkpoints were selected on the validation set; each run "
        "was evaluated once on the test set.",
        f"95% interval: confidence interval for new images and new training runs (crossed {kind}s × images, "
        "Welch-Satterthwaite t; Wilson for a single run).",
        f"Spread: standard deviation over {kind}s. Recall: share of a class's test images that are classified "
        "correctly. Macro-F1 and worst class recall count every class the same, however rare.",
        "Time saved: compared with the chosen recipe of full; filling caches counts as time, although the first run "
        "does it for all others. Compute saved: FLOPs, compared with training every block in every epoch.",
    ]


def pair_notes(kind: str) -> list[str]:
    """Return how the pairwise comparisons were measured."""
    return [
        "Differences of mean test accuracy on the same test images, with 95% confidence intervals for new images and "
        f"new training runs ({kind}s × images, Welch-Satterthwaite t).",
        "p-values are of the comparisons with the candidate, the arm with the highest mean val accuracy, corrected for "
        "their number (Holm). They need at least 2 runs of each arm. pairs.csv has all other pairs, too.",
        "Probability of improvement: how often a run of the first arm is more accurate than one of the second.",
    ]


def cost_notes(kind: str) -> list[str]:
    """Return how costs were measured."""
    return [
        f"Means over {kind}s; in brackets the range of single runs. A complete run includes start, caches, validation "
        "and test.",
        "FLOPs: two per multiply-add; “with cache” counts frozen blocks only where they were computed. Frozen shares "
        "are means over epochs.",
        "Energy is that of the whole device, including other processes.",
    ]


def data_sentence(data: dict[str, Any]) -> str:
    """Return the numbers of classes and images, as far as they are known; "" if nothing is."""
    splits, counts = data["splits"], []
    if data["classes"]:
        counts.append(f"{len(data['classes'])} classes")
    if all(splits.values()):
        counts.append(f"{splits['train']:,} training, {splits['val']:,} val and {splits['test']:,} test images")
    return f"{', '.join(counts)}." if counts else ""


def baseline_sentence(data: dict[str, Any]) -> str:
    """Return the accuracy of predictors that ignore the image, as far as it is known; "" if nothing is."""
    baselines = []
    if data["chance"] is not None:
        baselines.append(f"random guesses {percent(data['chance'])}")
    if data["majority_share"] is not None:
        baselines.append(f"always “{data['majority_class']}” {percent(data['majority_share'])}")
    return f"Test accuracy without looking: {', '.join(baselines)}." if baselines else ""


def best_run_sentence(analysis: Analysis) -> str:
    """Return which run the predictions are of, and why."""
    best, recipes = analysis.best, analysis.comparison.recipes
    names = dict(zip(recipes["key"], recipes["recipe"], strict=True))
    fold = "" if pd.isna(best["fold"]) else f", fold {best['fold']:g}"
    return (
        f"Run {best['run']} ({best['strategy']}, {names[best['recipe']]}, seed {best['seed']:g}{fold}): "
        "the chosen recipes' run with the highest val accuracy."
    )

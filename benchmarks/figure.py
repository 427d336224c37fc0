"""Where the time of an epoch goes, the plain loop beside ours, as one small figure from a results file:

python -m benchmarks.figure benchmarks/results/NAME.json docs/where_the_time_goes.png
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd
import seaborn
from matplotlib import pyplot as plt
from matplotlib import rc_context

from benchmarks.baselines import OURS, PLAIN
from benchmarks.runner import Results
from benchmarks.table import Row, seconds_by_part

# Parts in stacking order -> the legend's name, and the place in seaborn's colour-blind palette; neighbours differ in
# lightness too.
PARTS = {
    "loader": ("loading images", 9),
    "prefix": ("frozen blocks", 1),
    "cache": ("filling caches (images, activations)", 2),
    "suffix": ("trainable blocks", 0),
    "val": ("val", 4),
    "other": ("other", 7),
}
# Label of a bar -> contender, key of its epochs.
BARS = {
    "plain loop": (PLAIN, "epochs"),
    "ours": (OURS[0], "epochs"),
    "ours, caches filled": (OURS[0], "further"),
}
MIN_LEGEND_SHARE = 0.0005  # of the longest bar; a shorter part can't be seen and has no entry in the legend


def epoch_parts(runs: Sequence[Row], strategy: str, contender: str, key: str) -> dict[str, float] | None:
    """Return part -> seconds of an epoch, the mean over epochs, the median over rounds; None without such runs."""
    own = [run[key] for run in runs if (run["strategy"], run["contender"]) == (strategy, contender) and key in run]
    rounds = [[seconds_by_part(epoch) for epoch in epochs] for epochs in own]
    if not rounds:
        return None
    return {part: median(fmean(row.get(part, 0.0) for row in epochs) for epochs in rounds) for part in PARTS}


@rc_context()  # restores matplotlib's settings, which seaborn changes
def draw_figure(results: Results, path: Path) -> bool:
    """Draw the figure into `path`; return False where the results lack the plain loop or ours."""
    plan = results["plan"]
    bars = {
        (strategy, label): parts
        for strategy in plan["strategies"]
        for label, (contender, key) in BARS.items()
        if (parts := epoch_parts(results["runs"], strategy, contender, key)) is not None
    }
    if len({strategy for strategy, _ in bars}) == len(bars):  # nothing to compare
        return False
    names = [f"$\\bf{{{strategy}}}$   {label}" if label == "plain loop" else label for strategy, label in bars]
    seconds = pd.DataFrame(bars.values(), index=names)
    totals = seconds.sum(axis="columns")
    shown = seconds.loc[:, seconds.max() > MIN_LEGEND_SHARE * totals.max()]
    seaborn.set_theme(style="whitegrid", context="paper", rc={"font.size": 9, "axes.labelsize": 9})
    palette = seaborn.color_palette("colorblind", 10)
    figure, axes = plt.subplots(figsize=(7.6, 1.3 + 0.33 * len(bars)), layout="constrained")
    colours = [palette[PARTS[part][1]] for part in shown]
    shown.plot.barh(ax=axes, stacked=True, width=0.85, linewidth=0, color=colours, legend=False)
    containers: Any = axes.containers  # of bars, one for each part
    axes.bar_label(containers[-1], labels=[f"{total:.3g} s" for total in totals], padding=4)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, totals.max() * 1.1)
    axes.set_xlabel(f"seconds an epoch of {plan['pictures']} images ({plan['backbone']}, {plan['image_px']} px, fp32)")
    labels = [PARTS[part][0] for part in shown]
    figure.legend(containers, labels, loc="outside lower center", ncols=3, frameon=False)
    seaborn.despine(figure, left=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def main(arguments: list[str]) -> int:
    """Draw the figure of a results file; return the exit code."""
    source, path = map(Path, arguments)
    return 0 if draw_figure(json.loads(source.read_text()), path) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

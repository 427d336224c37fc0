"""Where the time of an epoch goes, the plain loop beside ours, as one small figure from a results file:

python -m benchmarks.figure benchmarks/results/NAME.json docs/where_the_time_goes.png
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import matplotlib.pyplot as plt
import seaborn
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patches import Patch

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
GAP = 0.7  # between strategies, of a bar's height
MIN_LEGEND_SHARE = 0.0005  # of the longest bar; a shorter part can't be seen and has no entry in the legend

Bar = tuple[str, str, dict[str, float]]  # strategy, label, part -> seconds


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
    plan, runs = results["plan"], results["runs"]
    bars: list[Bar] = [
        (strategy, label, parts)
        for strategy in plan["strategies"]
        for label, (contender, key) in BARS.items()
        if (parts := epoch_parts(runs, strategy, contender, key)) is not None
    ]
    strategies = [strategy for strategy, _, _ in bars]
    if len(strategies) == len(set(strategies)):  # nothing to compare
        return False
    seaborn.set_theme(style="whitegrid", context="paper", rc={"font.size": 9, "axes.labelsize": 9})
    height = 1.3 + 0.27 * (len(bars) + GAP * len(set(strategies)))
    figure, axes = plt.subplots(figsize=(7.6, height), layout="constrained")
    _draw_bars(axes, bars)
    axes.set_xlabel(f"seconds an epoch of {plan['pictures']} images ({plan['backbone']}, {plan['image_px']} px, fp32)")
    longest = max(sum(parts.values()) for _, _, parts in bars)
    axes.set_xlim(0, longest * 1.1)
    shown = [part for part in PARTS if any(parts[part] > MIN_LEGEND_SHARE * longest for _, _, parts in bars)]
    handles = [Patch(color=_colour(part), label=PARTS[part][0]) for part in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    seaborn.despine(figure, left=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    """Draw the bars below one another, with a gap before each strategy."""
    strategies = list(dict.fromkeys(strategy for strategy, _, _ in bars))
    heights = [number + GAP * strategies.index(strategy) for number, (strategy, _, _) in enumerate(bars)]
    for height, (_, _, parts) in zip(heights, bars, strict=True):
        end = 0.0
        for part, seconds in parts.items():
            axes.barh(height, seconds, left=end, color=_colour(part), height=0.85, linewidth=0)
            end += seconds
        axes.annotate(f"{end:.3g} s", (end, height), (4, 0), textcoords="offset points", va="center")
    names = [f"$\\bf{{{strategy}}}$   {label}" if label == "plain loop" else label for strategy, label, _ in bars]
    axes.set_yticks(heights, names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _colour(part: str) -> tuple[float, float, float]:
    colour: tuple[float, float, float] = seaborn.color_palette("colorblind", 10)[PARTS[part][1]]
    return colour


def main(arguments: list[str]) -> int:
    """Draw the figure of a results file; return the exit code."""
    source, path = map(Path, arguments)
    return 0 if draw_figure(json.loads(source.read_text()), path) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where the time goes: the plain loop's epoch beside ours, by part, as one small figure; from a results file.

python -m benchmarks.figure benchmarks/results/NAME.json docs/where_the_time_goes.png
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import seaborn
from matplotlib import rc_context
from matplotlib.patches import Rectangle

from benchmarks.baselines import OURS, PLAIN
from benchmarks.runner import Results
from benchmarks.table import Row, parts

# Parts in the order in which they are stacked, as the legend names them.
PARTS = {
    "loader": "loading pictures",
    "prefix": "frozen part",
    "cache": "filling caches (pictures, frozen part)",
    "suffix": "what trains",
    "val": "val",
    "other": "other",
}
# Whose bars are shown: label -> contender, key of its epochs.
BARS = {
    "plain loop": (PLAIN, "epochs"),
    "ours": (OURS[0], "epochs"),
    "ours, caches filled": (OURS[0], "further"),
}
# Places in seaborn's colour-blind palette; neighbours differ in lightness too.
COLOURS = {"loader": 9, "prefix": 1, "cache": 2, "suffix": 0, "val": 4, "other": 7}
LEAST_LABEL = 0.0005  # of the longest bar; what is shorter is not nothing, but can't be seen


def epoch_parts(runs: Sequence[Row], strategy: str, contender: str, key: str) -> dict[str, float] | None:
    """Return part -> seconds of an epoch, the mean over epochs, the median over rounds; None without such runs."""
    own = [run for run in runs if (run["strategy"], run["contender"]) == (strategy, contender) and key in run]
    if not own:
        return None
    means = [[parts(epoch) for epoch in run[key]] for run in own]
    return {
        part: median(sum(epoch.get(part, 0.0) for epoch in epochs) / len(epochs) for epochs in means) for part in PARTS
    }


@rc_context()  # at its end, matplotlib's settings are again what they were before seaborn's
def draw_figure(results: Results, path: Path) -> bool:
    """Draw the figure into `path`; return False where the results lack the plain loop or ours."""
    strategies = [name for name in results["plan"]["strategies"] if _bars(results, name)]
    if not any(len(_bars(results, name)) > 1 for name in strategies):
        return False
    seaborn.set_theme(style="whitegrid", context="paper", rc={"font.size": 9, "axes.labelsize": 9})
    count = sum(len(_bars(results, name)) for name in strategies) + len(strategies) * 0.7
    figure, axes = plt.subplots(figsize=(7.6, 1.3 + 0.27 * count), layout="constrained")
    palette = seaborn.color_palette("colorblind", 10)
    colours = {part: palette[index] for part, index in COLOURS.items()}
    place, ticks, names = 0.0, [], []
    longest = max(sum(bar.values()) for name in strategies for bar in _bars(results, name).values())
    for strategy in strategies:
        for label, bar in _bars(results, strategy).items():
            left = 0.0
            for part, seconds in bar.items():
                axes.barh(place, seconds, left=left, color=colours[part], height=0.85, linewidth=0)
                left += seconds
            axes.text(left + longest * 0.008, place, f"{left:.3g} s", va="center")
            ticks.append(place)
            names.append(f"$\\bf{{{strategy}}}$   {label}" if label == "plain loop" else label)
            place += 1
        place += 0.7
    axes.set_yticks(ticks, names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, longest * 1.1)
    plan = results["plan"]
    axes.set_xlabel(
        f"seconds an epoch of {plan['pictures']} pictures ({plan['backbone']}, {plan['image_px']} px, fp32)"
    )
    used = [part for part in PARTS if _is_used(results, strategies, part, longest)]
    handles = [Rectangle((0, 0), 1, 1, color=colours[part]) for part in used]
    figure.legend(handles, [PARTS[part] for part in used], loc="outside lower center", ncols=3, frameon=False)
    seaborn.despine(figure, left=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def _bars(results: Results, strategy: str) -> Mapping[str, dict[str, float]]:
    found = {label: epoch_parts(results["runs"], strategy, *which) for label, which in BARS.items()}
    return {label: bar for label, bar in found.items() if bar is not None}


def _is_used(results: Results, strategies: Sequence[str], part: str, longest: float) -> bool:
    bars = [bar for name in strategies for bar in _bars(results, name).values()]
    return any(bar[part] > LEAST_LABEL * longest for bar in bars)


def main(arguments: list[str]) -> int:
    """Draw the figure of a results file; return the exit code."""
    source, path = map(Path, arguments)
    return 0 if draw_figure(json.loads(source.read_text()), path) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

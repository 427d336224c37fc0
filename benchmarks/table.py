"""The results as tables in Markdown. Ratios are to the plain loop of the same round."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import median
from typing import Any

from benchmarks.baselines import CONTENDERS, OURS, PLAIN
from benchmarks.roofline import floor_seconds
from benchmarks.runner import LOADERS, VAL_SHARE, Results

Row = Mapping[str, Any]

CAVEATS = [
    "Equal work: the same images, new views of them in each epoch, val after each; filling caches counts, writing "
    "checkpoints does not.",
    "A further run: another rate on the same cached views, as in a sweep; only where blocks are frozen.",
    "× floor: seconds over those of the same FLOPs at the measured peak of the row's precision.",
]


def seconds_by_part(epoch: Row) -> dict[str, float]:
    """Return part -> seconds of an epoch's row, such that they add up to the epoch."""
    seconds = {name.removeprefix("seconds/"): float(epoch[name]) for name in epoch if name.startswith("seconds/")}
    if "suffix" in seconds:
        seconds.pop("train", None)  # consists of loader, prefix and suffix
    return seconds


def total_seconds(epochs: Iterable[Row]) -> float:
    """Return the seconds of all epochs: training, val, filling caches."""
    return sum(sum(seconds_by_part(epoch).values()) for epoch in epochs)


def ratios(runs: Sequence[Row], strategy: str, contender: str, key: str = "epochs") -> list[float]:
    """Return, for each round that has both, the plain loop's seconds over the contender's: above 1 is faster.

    Args:
        key: of the contender's epochs: `epochs`, or `further` for the second run on the same caches.
    """
    plain, own = (
        {run["round"]: total_seconds(run[name]) for run in _successful(runs, strategy, runner) if name in run}
        for runner, name in ((PLAIN, "epochs"), (contender, key))
    )
    return [plain[number] / own[number] for number in sorted(plain.keys() & own.keys())]


def _successful(runs: Sequence[Row], strategy: str, contender: str) -> list[Row]:
    key = (strategy, contender)
    return [run for run in runs if (run["strategy"], run["contender"]) == key and "error" not in run]


def speed_table(results: Results) -> list[str]:
    """Return the lines of the table of strategies and contenders, and the caveats below it."""
    plan, skipped = results["plan"], results["skipped"]
    head = ["strategy", "", "images/s", "× plain loop", "a further run", "peak memory", "× floor"]
    rows = [
        [strategy, CONTENDERS[name].title, *_speed_cells(results, strategy, name)]
        for strategy in plan["strategies"]
        for name in plan["contenders"]
        if name not in skipped
    ]
    errors = {
        f"Failed: {run['strategy']}, {CONTENDERS[run['contender']].title}: {run['error']}"
        for run in results["runs"]
        if "error" in run
    }
    left_out = [f"Left out: {CONTENDERS[name].title}: {reason}." for name, reason in skipped.items()]
    notes = [
        f"{CONTENDERS[name].title}: {CONTENDERS[name].note}." for name in plan["contenders"] if name not in skipped
    ]
    return [*markdown_table(head, rows), "", *left_out, *sorted(errors), *CAVEATS, *notes]


def loader_table(results: Results) -> list[str]:
    """Return the lines of the table of loaders: how many times as fast as ImageFolder, in one thread."""
    measured = {(row["px"], row["loader"], row["round"]): row for row in results["loader"] if "error" not in row}
    rows = []
    for px, name in product(results["plan"]["loader_px"], LOADERS):
        rounds = [key[2] for key in measured if key[:2] == (px, name) and (px, PLAIN, key[2]) in measured]
        pairs = [(measured[px, PLAIN, number], measured[px, name, number]) for number in rounds]
        if pairs:
            later = _format_spread([median(plain["seconds"]) / median(own["seconds"]) for plain, own in pairs])
            first = _format_spread([plain["first"] / own["first"] for plain, own in pairs])
            rows.append([str(px), LOADERS[name], *(["1", "1"] if name == PLAIN else [first, later])])
    return markdown_table(["px", "loader, 1 thread", "× ImageFolder, first epoch", "later epochs"], rows)


def introduction(results: Results) -> list[str]:
    """Return the lines about the network, the data and the machine."""
    plan, machine, floor = results["plan"], results["machine"], results["floor"]
    peaks = ", ".join(f"{peak / 1e12:.3g} TFLOP/s in {name}" for name, peak in floor["peaks"].items())
    device = f"{machine['cpu']}, {machine['cores']} cores" if floor["device"] == "cpu" else floor["device"]
    versions = " ".join(f"{name} {value}" for name, value in machine["versions"].items())
    return [
        f"{plan['backbone']} at {plan['image_px']} px, weights {plan['weights']}, batches of {plan['batch_size']}, "
        f"{plan['pictures']} images an epoch, {plan['rounds']} rounds, {plan['threads']} threads",
        f"{device}, {machine['memory_gb']} GB; measured peak {peaks}; {versions}; commit {machine['git_commit']}",
    ]


def _speed_cells(results: Results, strategy: str, name: str) -> list[str]:
    """Return images/s, ratio, the further run's ratio, memory and distance to the floor of one row."""
    images = results["plan"]["pictures"]
    own = _successful(results["runs"], strategy, name)
    if not own:
        return ["failed", "", "", "", ""]
    seconds = median(total_seconds(run["epochs"]) for run in own)
    is_gpu = "peak_gpu_bytes" in own[0]
    memory = median(run["peak_gpu_bytes" if is_gpu else "peak_rss_bytes"] for run in own)
    flops, cuts = results["floor"]["work"][strategy]
    peak = results["floor"]["peaks"]["bf16" if name == OURS[1] else "fp32"]
    floor = floor_seconds(flops, cuts, images, max(4, images // VAL_SHARE), peak)
    return [
        f"{images * len(own[0]['epochs']) / seconds:.1f}",
        "1" if name == PLAIN else _format_spread(ratios(results["runs"], strategy, name)),
        _format_spread(ratios(results["runs"], strategy, name, "further")),
        f"{memory / 1e9:.2f} GB" + (" GPU" if is_gpu else ""),
        f"{seconds / floor:.1f}",
    ]


def _format_spread(values: Sequence[float]) -> str:
    """Return the median, and the range where there are several values."""
    if not values:
        return ""
    middle = _format_number(median(values))
    return middle if len(values) == 1 else f"{middle} ({_format_number(min(values))}–{_format_number(max(values))})"


def _format_number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table whose columns line up as text too."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]

"""From results to tables in Markdown; ratios are to the plain loop of the same round."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.baselines import CONTENDERS, OURS, PLAIN
from benchmarks.roofline import floor_seconds
from benchmarks.runner import LOADERS, VAL_SHARE, Results

Row = Mapping[str, Any]


def parts(epoch: Row) -> dict[str, float]:
    """Return part -> seconds of an epoch's row, such that they add up to the epoch."""
    found = {name.removeprefix("seconds/"): float(value) for name, value in epoch.items() if name[:8] == "seconds/"}
    if "suffix" in found:
        found.pop("train", None)  # of which loader, prefix and suffix are parts
    return found


def seconds(epochs: Iterable[Row]) -> float:
    """Return the seconds of all epochs: training, val, filling caches."""
    return sum(sum(parts(epoch).values()) for epoch in epochs)


def ratios(runs: Sequence[Row], strategy: str, contender: str, key: str = "epochs") -> list[float]:
    """Return, for each round that has both, the plain loop's seconds over the contender's: above 1 is faster.

    Args:
        key: of the contender's epochs: `epochs`, or `further` for the second run on the same caches.
    """
    by_round: dict[int, dict[str, Row]] = {}
    for run in runs:
        if run["strategy"] == strategy and "error" not in run:
            by_round.setdefault(run["round"], {})[run["contender"]] = run
    pairs = [(found.get(PLAIN), found.get(contender)) for _, found in sorted(by_round.items())]
    return [
        seconds(plain["epochs"]) / seconds(other[key])
        for plain, other in pairs
        if plain is not None and other is not None and key in other
    ]


def speed_table(results: Results) -> list[str]:
    """Return the lines of the table of strategies and contenders, and the caveats below it."""
    plan, runs = results["plan"], results["runs"]
    head = ["strategy", "", "images/s", "× plain loop", "a further run", "peak memory", "× floor"]
    rows = []
    for strategy in plan["strategies"]:
        for name in plan["contenders"]:
            if name not in results["skipped"]:
                rows.append([strategy, CONTENDERS[name].title, *_cells(results, strategy, name)])
    lines = _markdown(head, rows)
    failed = {
        f"{run['strategy']}, {CONTENDERS[run['contender']].title}: {run['error']}" for run in runs if "error" in run
    }
    lines += ["", *(f"Left out: {CONTENDERS[name].title}: {why}." for name, why in results["skipped"].items())]
    lines += [f"Failed: {line}" for line in sorted(failed)]
    return [*lines, *_caveats(results)]


def loader_table(results: Results) -> list[str]:
    """Return the lines of the table of loaders: how many times as fast as ImageFolder, in one thread."""
    found = {(row["px"], row["loader"], row["round"]): row for row in results["loader"] if "error" not in row}
    rows = []
    for px, name in dict.fromkeys((px, name) for px in results["plan"]["loader_px"] for name in LOADERS):
        pairs = [(found.get((px, PLAIN, number)), row) for (*key, number), row in found.items() if key == [px, name]]
        both = [(plain, own) for plain, own in pairs if plain is not None]
        if both:
            later = _spread([median(plain["seconds"]) / median(own["seconds"]) for plain, own in both])
            first = _spread([plain["first"] / own["first"] for plain, own in both])
            rows.append([str(px), LOADERS[name], *(["1", "1"] if name == PLAIN else [first, later])])
    return _markdown(["px", "loader, 1 thread", "× ImageFolder, first epoch", "later epochs"], rows)


def accuracy_table(results: Results) -> list[str]:
    """Return the lines of the table of seconds until val reached the target."""
    goal = results["target"]["val_accuracy"]
    head = ["strategy", "", f"seconds to {goal:.0%} val", "× plain loop", "best val", "test"]
    reached = {
        (run["strategy"], run["contender"]): seconds_to(run["epochs"], goal)
        for run in results["accuracy"]
        if "error" not in run
    }
    rows = []
    for run in results["accuracy"]:
        if "error" in run:
            rows.append([run["strategy"], CONTENDERS[run["contender"]].title, "failed", "", "", ""])
            continue
        own, plain = (reached.get((run["strategy"], name)) for name in (run["contender"], PLAIN))
        ratio = f"{plain / own:.2f}" if plain and own else ""
        best = max(epoch["val/accuracy"] for epoch in run["epochs"])
        test = f"{run['test/accuracy']:.1%}" if "test/accuracy" in run else ""
        shown = _short(own) if own else "never"
        rows.append([run["strategy"], CONTENDERS[run["contender"]].title, shown, ratio, f"{best:.1%}", test])
    return _markdown(head, rows)


def seconds_to(epochs: Sequence[Row], val_accuracy: float) -> float | None:
    """Return the seconds up to the end of the first epoch whose val reached `val_accuracy`, or None."""
    for index, epoch in enumerate(epochs):
        if epoch["val/accuracy"] >= val_accuracy:
            return seconds(epochs[: index + 1])
    return None


def introduction(results: Results) -> list[str]:
    """Return what was measured, on what."""
    plan, machine, floor = results["plan"], results["machine"], results["floor"]
    peaks = ", ".join(f"{peak / 1e12:.3g} TFLOP/s in {name}" for name, peak in floor["peaks"].items())
    device = f"{machine['cpu']}, {machine['cores']} cores" if floor["device"] == "cpu" else floor["device"]
    versions = " ".join(f"{name} {value}" for name, value in machine["versions"].items())
    return [
        f"{plan['backbone']} at {plan['image_px']} px, weights {plan['weights']}, batches of {plan['batch_size']}, "
        f"{plan['pictures']} pictures an epoch, {plan['rounds']} rounds, {plan['threads']} threads",
        f"{device}, {machine['memory_gb']} GB; measured peak {peaks}; {versions}; commit {machine['git_commit']}",
    ]


def _cells(results: Results, strategy: str, name: str) -> list[str]:
    """Return images/s, ratio, the further run's ratio, memory and distance to the floor of one row."""
    plan = results["plan"]
    own = [run for run in results["runs"] if (run["strategy"], run["contender"]) == (strategy, name)]
    own = [run for run in own if "error" not in run]
    if not own:
        return ["failed", "", "", "", ""]
    spent = median(seconds(run["epochs"]) for run in own)
    images = plan["pictures"] * len(own[0]["epochs"]) / spent
    gpu = "peak_gpu_bytes" in own[0]
    memory = median(run["peak_gpu_bytes" if gpu else "peak_rss_bytes"] for run in own)
    flops, cuts = results["floor"]["work"][strategy]
    peak = results["floor"]["peaks"]["bf16" if name == OURS[1] else "fp32"]
    floor = floor_seconds(flops, cuts, plan["pictures"], max(4, plan["pictures"] // VAL_SHARE), peak)
    ratio, further = ratios(results["runs"], strategy, name), ratios(results["runs"], strategy, name, "further")
    return [
        f"{images:.1f}",
        "1" if name == PLAIN else _spread(ratio),
        _spread(further),
        f"{memory / 1e9:.2f} GB" + (" GPU" if gpu else ""),
        f"{spent / floor:.1f}",
    ]


def _caveats(results: Results) -> list[str]:
    shown = [name for name in results["plan"]["contenders"] if name not in results["skipped"]]
    return [
        "Equal work: the same pictures, new views of them in each epoch, val after each; filling caches counts, "
        "writing checkpoints does not.",
        "A further run: another rate on the same cached views, as in a sweep; only where a part is frozen.",
        "× floor: seconds over those of the same FLOPs at the measured peak of the row's precision.",
        *(f"{CONTENDERS[name].title}: {CONTENDERS[name].note}." for name in shown if CONTENDERS[name].note),
    ]


def _spread(values: Sequence[float]) -> str:
    """Return the median, and the range where there are several values."""
    if not values:
        return ""
    middle = _short(median(values))
    return middle if len(values) == 1 else f"{middle} ({_short(min(values))}–{_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table whose columns line up as text too."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]

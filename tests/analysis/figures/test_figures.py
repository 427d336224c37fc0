"""Figures, compared by structure: artists, labels and styles, not bytes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

from analysis.figures import accuracy, curves, settings, style
from analysis.formatting import STRATEGIES
from analysis.sources.sweep import Sweep
from analysis.tables.comparison import Comparison, chosen_runs, compare
from tests.support.fabricate import fabricate_run, read_arms


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Return two strategies at two rates with two seeds; val chooses 0.003 for head and 0.001 for gradual."""
    folder = tmp_path_factory.mktemp("sweep")
    for strategy, lr, seed in itertools.product(("gradual", "head"), (0.001, 0.003), (0, 1)):
        good = (lr == 0.003) == (strategy == "head")
        fabricate_run(
            folder, f"{strategy}-{lr}-{seed}", strategy=strategy, lr=lr, seed=seed, epochs=6, val=0.8 if good else 0.6
        )
    return read_arms(folder)


@pytest.fixture(scope="module")
def comparison(sweep: Sweep) -> Comparison:
    return compare(sweep)


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def test_learning_curves_have_a_named_line_a_strategy_and_a_mark_a_step(
    sweep: Sweep, comparison: Comparison, ax: Axes
) -> None:
    """Two lines, two bands over seeds, names at their ends; gradual's steps in epochs 2, 3 and 4 are marked."""
    assert curves.learning_curves(chosen_runs(sweep, comparison), sweep.epochs, ax) is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "val accuracy")
    assert [line.get_label() for line in ax.lines if not str(line.get_label()).startswith("_")] == ["head", "gradual"]
    assert [text.get_text() for text in ax.texts] == ["head", "gradual"]
    assert len(ax.collections) == 2
    marks = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "^"]
    assert [epochs for epochs in marks if epochs] == [[2, 3, 4]]


def test_the_line_to_a_name_ends_at_its_left_edge(sweep: Sweep, comparison: Comparison, ax: Axes) -> None:
    """From the middle of a name it would cross the names below, where many lines end at one height."""
    curves.learning_curves(chosen_runs(sweep, comparison), sweep.epochs, ax)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    names = [text for text in ax.texts if isinstance(text, Annotation)]
    assert len(names) == 2
    for name in names:
        assert name.arrow_patch is not None
        assert name.arrow_patch.get_window_extent().x1 <= Text.get_window_extent(name).x0 + 1


def test_one_seed_has_a_line_and_no_band(sweep: Sweep, comparison: Comparison, ax: Axes) -> None:
    """A band over one run would show certainty that is not there."""
    curves.learning_curves(chosen_runs(sweep, comparison).query("seed == 0"), sweep.epochs, ax)
    assert len(ax.collections) == 0


def test_a_sweep_without_history_says_so(sweep: Sweep, comparison: Comparison, ax: Axes) -> None:
    """Empty axes look like a fault."""
    curves.learning_curves(chosen_runs(sweep, comparison), sweep.epochs.iloc[:0], ax)
    assert [text.get_text() for text in ax.texts] == ["no history was recorded"]


def test_accuracy_against_time_has_all_runs_pale_and_the_chosen_bold(
    sweep: Sweep, comparison: Comparison, ax: Axes
) -> None:
    """Two scatters a strategy; the unit of time is in the label; the legend is outside the data."""
    accuracy.accuracy_against_time(sweep.finished, chosen_runs(sweep, comparison), ax)
    assert [len(points.get_offsets()) for points in ax.collections] == [4, 2, 4, 2]  # type: ignore[arg-type]
    assert ax.get_xlabel() == "training time of a run (seconds, filling caches left out)"
    assert ax.get_legend() is None
    figure = ax.get_figure()
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["head", "gradual"]


@pytest.mark.parametrize("most", [12, 20, 43, 90, 900])
def test_a_logarithmic_axis_has_numbers_and_no_powers(sweep: Sweep, ax: Axes, most: float) -> None:
    """However short it is: matplotlib labels the minor ticks of a short one in TeX, which is not parsed here."""
    rows = len(sweep.finished)
    runs = sweep.finished.assign(train_seconds=np.geomspace(1.3, 1.3 * most, rows), cache_seconds=0.0)
    accuracy.accuracy_against_time(runs, runs, ax)
    assert ax.get_xscale() == "log"
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    labels = [label.get_text() for minor in (False, True) for label in ax.get_xticklabels(minor=minor)]
    assert "".join(labels)
    assert not {"$", "^", "\\"} & set("".join(labels)), labels


def test_accuracy_by_strategy_names_strategies_seeds_and_chance(sweep: Sweep, comparison: Comparison, ax: Axes) -> None:
    """The first strategy is on top; the interval's ends are the table's."""
    accuracy.accuracy_by_strategy(comparison.arms, chosen_runs(sweep, comparison), 1 / 3, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["head\n(2 seeds)", "gradual\n(2 seeds)"]
    assert ax.yaxis_inverted()
    assert " chance" in [text.get_text() for text in ax.texts]
    row = comparison.arms.iloc[0]
    assert list(ax.lines[0].get_xdata()) == [row["test_accuracy_low"], row["test_accuracy_high"]]


def test_the_heat_map_shows_val_and_boxes_the_choice(comparison: Comparison, ax: Axes) -> None:
    """Four cells; the boxes are at head 0.003 and gradual 0.001."""
    settings.rate_by_strategy(comparison.recipes, ax)
    assert [text.get_text() for text in ax.texts] == ["60.0%", "80.0%", "80.0%", "60.0%"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.001", "0.003"]
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert sorted((int(box.get_x()), int(box.get_y())) for box in boxes) == [(0, 1), (1, 0)]


def test_a_mean_over_fewer_seeds_says_so(comparison: Comparison, ax: Axes) -> None:
    """It was no candidate: without a note, the box would seem to be around the wrong cell."""
    fewer = comparison.recipes.copy()
    fewer.loc[[0], ["n", "over"]] = [1, "1 seed"]
    settings.rate_by_strategy(fewer, ax)
    assert ax.texts[0].get_text() == "60.0%\n1 seed"


def test_a_rate_that_was_not_run_is_marked(comparison: Comparison, ax: Axes) -> None:
    """A hole in the map is not a zero."""
    settings.rate_by_strategy(comparison.recipes.iloc[1:], ax)
    assert "not run" in [text.get_text() for text in ax.texts]


def test_many_rates_are_binned(comparison: Comparison, ax: Axes) -> None:
    """A random search has another rate in every run: 40 columns can't be read."""
    many = comparison.recipes.iloc[[0] * 40].assign(lr=np.geomspace(1e-4, 1e-2, 40), chosen=False)
    settings.rate_by_strategy(many, ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]


def test_every_strategy_has_a_style_of_its_own_that_can_be_read() -> None:
    """A colour, a marker and a line of its own; names written in the colour have 4.5:1 on white (WCAG 1.4.3)."""
    for values in (style.COLOURS, style.MARKERS, style.DASHES):
        assert set(values) == set(STRATEGIES)
        assert len({str(value) for value in values.values()}) == len(STRATEGIES)
    for name in style.COLOURS.values():
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(name)]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 4.5


@given(st.lists(st.floats(0, 1), max_size=5))
def test_labels_are_pushed_apart_in_their_order(heights: list[float]) -> None:
    """No two overlap, none leaves the axes at the top, and the highest line keeps the highest name."""
    placed = style.spread_out(heights, 0.1, 1.0)
    assert all(height <= 1.0 for height in placed)
    for first, second in itertools.combinations(range(len(heights)), 2):
        assert abs(placed[first] - placed[second]) > 0.0999
        if heights[first] != heights[second]:
            assert (heights[first] < heights[second]) == (placed[first] < placed[second])


def test_a_figure_is_written_as_png_and_pdf(tmp_path: Path, comparison: Comparison) -> None:
    """Both lie beside each other under the figure's name."""
    figure = style.new_figure(lambda ax: settings.rate_by_strategy(comparison.recipes, ax))
    png, pdf = style.save_figure(figure, tmp_path / "map")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert [png.name, pdf.name] == ["map.png", "map.pdf"]


def test_a_run_that_was_stopped_keeps_its_last_value(tmp_path: Path, ax: Axes) -> None:
    """The mean over those that went on would jump to 90% where the worse run ends."""
    fabricate_run(tmp_path, "a", strategy="head", seed=0, curve=[0.4, 0.5], epochs=4)
    fabricate_run(tmp_path, "b", strategy="head", seed=1, curve=[0.4, 0.5, 0.8, 0.9], epochs=4)
    sweep = read_arms(tmp_path)
    curves.learning_curves(sweep.finished, sweep.epochs, ax)
    line = next(line for line in ax.lines if line.get_label() == "head")
    assert np.asarray(line.get_ydata()) == pytest.approx([0.4, 0.5, 0.65, 0.7])


def test_arms_beyond_strategies_have_readable_colours() -> None:
    """The same in every figure, 4.5:1 on white."""
    arms = [f"partial, views {count}" for count in range(10)]
    with style.arm_order(["full", *arms]):
        assert len({style.colour(arm) for arm in arms}) == 10
        assert len({(style.marker(arm), style.dash(arm)) for arm in arms}) == 10
        assert style.colour("full") == style.COLOURS["full"]
    for name in style.OTHER_COLOURS:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(name)]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) >= 4.5, name

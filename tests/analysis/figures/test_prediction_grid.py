"""Prediction grids: a fair choice of images, shown the right way up; errors differ from correct predictions."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from analysis.figures import grid_selection, prediction_grid, specs, style
from analysis.pipeline import analyze_sweep
from analysis.sources.predictions import labelled, read_predictions
from analysis.sources.run_directories import read_sweep
from finetune.data import thumbnails
from finetune.rundir import keys
from tests.support.fabricate import CLASSES, fabricate_pictures, fabricate_run, write_predictions


def answers(counts: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Return predictions with so many right and wrong ones of each class."""
    rows = [
        (f"{name}/{index}.png", name, name if index < right else "other", 0.5 + index / 1000, index < right)
        for name, (right, wrong) in counts.items()
        for index in range(right + wrong)
    ]
    return pd.DataFrame(rows, columns=["path", "label", "prediction", "confidence", "correct"])


def test_images_are_shown_with_the_share_of_errors_of_their_class() -> None:
    """Of 8 shown, half of a class that is half wrong, none of one that is all right, all of one that is all wrong."""
    chosen = grid_selection.choose_images(answers({"half": (20, 20), "right": (40, 0), "wrong": (0, 40)}), [])
    assert [int((~chosen.cells[name]["correct"]).sum()) for name in ("half", "right", "wrong")] == [4, 0, 8]
    assert all(len(cells) == 8 for cells in chosen.cells.values())
    assert chosen.recall["half"] == (20, 40)


def test_rounding_favours_neither_side() -> None:
    """One wrong in 16 is half an image of 8: over many draws it is shown about every other time."""
    table = answers({"a": (15, 1)})
    shown = [int((~grid_selection.choose_images(table, ["a"], seed).cells["a"]["correct"]).sum()) for seed in range(60)]
    assert 20 <= sum(shown) <= 40


@pytest.mark.parametrize("counts", [(1, 0), (0, 1), (2, 1), (8, 0), (7, 2)])
def test_small_classes_show_what_they_have(counts: tuple[int, int]) -> None:
    """Never more than there are, never twice the same."""
    for seed in range(10):
        cells = grid_selection.choose_images(answers({"a": counts}), ["a"], seed).cells["a"]
        assert len(cells) == min(8, sum(counts)) == cells["path"].nunique()


def test_equal_seeds_choose_equal_images_in_any_order_of_rows() -> None:
    """The choice can be repeated, and depends on nothing but the answers."""
    table = answers({"a": (20, 9), "b": (9, 20)})
    first = grid_selection.choose_images(table, ["b", "a"], seed=3)
    second = grid_selection.choose_images(table.sample(frac=1, random_state=0), ["b", "a"], seed=3)
    assert first.rows == second.rows == ("b", "a")
    for name in first.rows:
        assert first.cells[name]["path"].tolist() == second.cells[name]["path"].tolist()


def test_many_classes_are_sampled_and_the_caption_says_so() -> None:
    """Ten rows can be looked at; the caption says that there are more."""
    chosen = grid_selection.choose_images(answers({f"c{n:02}": (1, 0) for n in range(30)}), [])
    assert len(chosen.rows) == 10
    assert chosen.caption.startswith("10 of the 30 classes")


def test_right_and_wrong_differ_in_mark_border_and_colour(tmp_path: Path) -> None:
    """They differ by more than colour; an error names the predicted class."""
    for name in ("a/0.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 20)).save(tmp_path / name)
    chosen = grid_selection.choose_images(answers({"a": (1, 1)}), ["a"])
    figure = prediction_grid.draw_grid(
        chosen, prediction_grid.find_images(chosen, [tmp_path / "run"], tmp_path), "title"
    )
    ax = figure.axes[0]
    assert len(ax.images) == 2
    words = [text.get_text() for text in ax.texts]
    assert words == ["a", "1 of 2 correct", "✓ 50%", "✗ 50%\nother"]
    borders = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_linewidth() > 1]
    assert [to_hex(border.get_edgecolor()).upper() for border in borders] == [
        prediction_grid.CORRECT,
        prediction_grid.WRONG,
    ]
    assert [border.get_linewidth() for border in borders] == [1.5, 3]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(2)  # 40 wide, 20 high


def test_where_rows_are_no_classes_each_image_has_its_true_class() -> None:
    """Without it, neither an error nor a correct prediction can be judged."""
    predictions = answers({"a": (1, 1)})
    for choose in (grid_selection.choose_confident_errors, grid_selection.choose_least_confident):
        chosen = choose(predictions)
        assert chosen is not None
        words = [text.get_text() for text in prediction_grid.draw_grid(chosen, {}, "title").axes[0].texts]
        assert words.count("is a") == 1  # the wrong one
        assert words.count("a") == len(chosen.cells[chosen.rows[0]]) - 1


def test_without_images_the_cells_say_so(tmp_path: Path) -> None:
    """Predictions are worth showing without images."""
    chosen = grid_selection.choose_images(answers({"a": (1, 1)}), ["a"])
    figure = prediction_grid.draw_grid(chosen, prediction_grid.find_images(chosen, [tmp_path], None), "title")
    assert [text.get_text() for text in figure.axes[0].texts].count("image\nnot found") == 2


def test_names_are_drawn_as_they_are_or_as_boxes() -> None:
    """A dollar sign is no formula, a sign that the font lacks is no warning."""
    chosen = grid_selection.choose_images(answers({"$a^$": (1, 0), "\ue123": (1, 0)}), [])
    figure = prediction_grid.draw_grid(chosen, {}, "cost: $5 and $6")
    figure.canvas.draw()  # type: ignore[attr-defined]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "$a^$" in words
    assert "□" in words


@pytest.mark.parametrize(
    ("names", "length", "shown"),
    [
        (["a_very_long_name_of_a_class"], 10, ["a ver…lass"]),
        (["Tomato___Tomato_mosaic_virus", "Tomato___Tomato_leaf_virus"], 14, ["…mosaic virus", "…leaf virus"]),
        (["x" * 30 + "a" + "y" * 30, "x" * 30 + "b" + "y" * 30], 14, ["xxxxxxx…yyyy~1", "xxxxxxx…yyyy~2"]),
        (["cat", "dog"], 14, ["cat", "dog"]),
    ],
)
def test_short_names_stay_different(names: list[str], length: int, shown: list[str]) -> None:
    """The middle is left out, then what the names begin with; a number is the last resort."""
    found = list(style.short_names(names, length).values())
    assert all(len(name) <= length for name in found)
    assert len({name.casefold() for name in found}) == len(names)
    assert found == shown


def test_letters_of_other_scripts_are_drawn_where_a_font_has_them() -> None:
    """Fonts are those of the machine: with none, a box is drawn, and a warning says what to install."""
    has_chinese = any(name in style.font_families() for name in (*style.OTHER_FONTS[:3], "WenQuanYi Zen Hei"))
    assert style.replace_missing_glyphs("鳥") == ("鳥" if has_chinese else "□")
    assert style.STYLE["font.family"] == style.font_families()


def test_a_run_stores_the_images_that_the_grid_shows(tmp_path: Path) -> None:
    """Chosen from the file at the run's end, or from the frame in the analysis: the same, in the same order."""
    images = fabricate_pictures(tmp_path / "data", each=30)
    predictions = [(path, name, CLASSES[index % 3], 0.4 + index % 7 / 20) for index, (path, name) in enumerate(images)]
    write_predictions(tmp_path, predictions[::-1])
    thumbnails.write_thumbnails(tmp_path, tmp_path / "data", CLASSES)
    chosen = grid_selection.choose_images(read_predictions(tmp_path), list(CLASSES))
    paths = [path for name in chosen.rows for path in chosen.cells[name]["path"]]
    assert len(paths) == 24
    with zipfile.ZipFile(tmp_path / keys.THUMBNAILS) as archive:
        assert archive.namelist() == [f"{path}.jpg" for path in paths]


def test_the_grid_is_the_same_with_the_data_and_without(tmp_path: Path) -> None:
    """What travelled with the run is drawn on either machine; the data folder fills what it lacks."""
    images = fabricate_pictures(tmp_path / "data", each=2)
    write_predictions(tmp_path, [(path, name, "disc", 0.9) for path, name in images])
    chosen = grid_selection.choose_images(read_predictions(tmp_path), list(CLASSES))
    assert len(prediction_grid.find_images(chosen, [tmp_path], tmp_path / "data")) == 6
    assert not prediction_grid.find_images(chosen, [tmp_path], None)
    lost = tmp_path / "data" / images[0][0]
    content = lost.read_bytes()
    lost.unlink()
    thumbnails.write_thumbnails(tmp_path, tmp_path / "data", CLASSES)
    lost.write_bytes(content)
    here, away = (prediction_grid.find_images(chosen, [tmp_path], root) for root in (tmp_path / "data", None))
    assert set(here) - set(away) == {images[0][0]}
    assert all((here[path] == away[path]).all() for path in away)


def test_predictions_on_new_images_are_shown_like_those_on_test(tmp_path: Path) -> None:
    """The folder names the class; the frame has the columns of a run's own predictions, so that a grid takes it."""
    rows = [("new/disc/1.png", "disc", 0.9), ("new/square/1.png", "disc", 0.4)]
    found = labelled(iter(rows))
    assert found["label"].tolist() == ["disc", "square"]
    assert found["correct"].tolist() == [True, False]
    write_predictions(tmp_path, [("disc/1.png", "disc", "disc", 0.9)])
    own = read_predictions(tmp_path)
    assert found.columns.tolist() == own.columns.tolist()
    assert found.dtypes.astype(str).tolist() == own.dtypes.astype(str).tolist()
    least = grid_selection.choose_least_confident(found)
    assert least is not None
    assert [path for cells in least.cells.values() for path in cells["path"]] == ["new/square/1.png", "new/disc/1.png"]


def test_attention_maps_are_a_grid_once_they_are_drawn(tmp_path: Path) -> None:
    """It shows the images of attention.zip in the cells of the grid by class, and no others; without it, no grid."""
    images = fabricate_pictures(tmp_path / "data", each=2)
    predictions = [(path, name, "disc", 0.9) for path, name in images]
    folder = tmp_path / "sweep"
    origin = {"data_root": str(tmp_path / "data")}
    run_dir = fabricate_run(folder, "only", predictions=predictions, provenance=origin)
    analysis = analyze_sweep(read_sweep(folder))
    assert specs.GRIDS["prediction_grid_attention"](analysis) is None
    blue = np.full((40, 40, 3), (0, 0, 255), dtype=np.uint8)
    thumbnails.pack_thumbnails(run_dir / keys.ATTENTION, [(path, blue) for path, _ in images[1:]])
    drawn = []
    for name in ("prediction_grid_attention", "prediction_grid"):
        spec = specs.GRIDS[name](analysis)
        assert spec is not None
        assert spec.notes == ()
        (png,) = style.save_figure(spec.draw(), tmp_path / name, ("png",), 130)
        drawn.append((spec.title, np.asarray(Image.open(png).convert("RGB"))))
    assert drawn[0][0] == "Attention of only"
    blues = [float(((image[..., 2] > 240) & (image[..., :2] < 15).all(axis=2)).mean()) for _, image in drawn]
    assert 0.05 < blues[0] < 0.5
    assert blues[1] == 0


def test_missing_images_are_noted(tmp_path: Path) -> None:
    """With the places where they were looked for."""
    predictions = [("test/disc/1.png", "disc", "disc", 0.9)]
    fabricate_run(tmp_path, "only", predictions=predictions, provenance={"data_root": "/nowhere"})
    spec = specs.GRIDS["prediction_grid"](analyze_sweep(read_sweep(tmp_path)))
    assert spec is not None
    (note,) = spec.notes
    assert note.startswith("1 of the 1 images of the prediction grid are missing: not in ")
    assert note.endswith("and not below /nowhere.")

"""The prediction grid: a fair choice of pictures, shown the right way up, right and wrong told apart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from analysis import grid


def answers(counts: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Return predictions with so many right and wrong ones of each class."""
    rows = [
        (f"{name}/{index}.png", name, name if index < right else "other", 0.5 + index / 1000, index < right)
        for name, (right, wrong) in counts.items()
        for index in range(right + wrong)
    ]
    return pd.DataFrame(rows, columns=["path", "label", "prediction", "confidence", "correct"])


def test_pictures_stand_in_the_proportion_of_their_class() -> None:
    """Of 8 shown, half of a class that is half wrong, none of one that is all right, all of one that is all wrong."""
    chosen = grid.choose_pictures(
        answers({"half": (20, 20), "right": (40, 0), "wrong": (0, 40)}), [], np.random.default_rng(0)
    )
    assert [int((~chosen.cells[name]["correct"]).sum()) for name in ("half", "right", "wrong")] == [4, 0, 8]
    assert all(len(cells) == 8 for cells in chosen.cells.values())
    assert chosen.recall["half"] == (20, 40)


def test_rounding_favours_neither_side() -> None:
    """One wrong in 16 is half a picture of 8: over many draws it is shown about every other time."""
    rng = np.random.default_rng(0)
    shown = [
        int((~grid.choose_pictures(answers({"a": (15, 1)}), ["a"], rng).cells["a"]["correct"]).sum()) for _ in range(60)
    ]
    assert 20 <= sum(shown) <= 40


@pytest.mark.parametrize("counts", [(1, 0), (0, 1), (2, 1), (8, 0), (7, 2)])
def test_small_classes_show_what_they_have(counts: tuple[int, int]) -> None:
    """Never more than there are, never twice the same."""
    for seed in range(10):
        cells = grid.choose_pictures(answers({"a": counts}), ["a"], np.random.default_rng(seed)).cells["a"]
        assert len(cells) == min(8, sum(counts)) == cells["path"].nunique()


def test_equal_seeds_choose_equal_pictures_in_any_order_of_rows() -> None:
    """The choice can be repeated, and depends on nothing but the answers."""
    table = answers({"a": (20, 9), "b": (9, 20)})
    one = grid.choose_pictures(table, ["b", "a"], np.random.default_rng(3))
    other = grid.choose_pictures(table.sample(frac=1, random_state=0), ["b", "a"], np.random.default_rng(3))
    assert one.classes == other.classes == ("b", "a")
    for name in one.classes:
        assert one.cells[name]["path"].tolist() == other.cells[name]["path"].tolist()


def test_many_classes_are_sampled_and_said() -> None:
    """Ten rows can be looked at; the caption says that there are more."""
    chosen = grid.choose_pictures(answers({f"c{n:02}": (1, 0) for n in range(30)}), [], np.random.default_rng(0))
    assert len(chosen.classes) == 10
    assert chosen.caption.startswith("10 of the 30 classes")


def test_a_picture_is_turned_upright_and_keeps_its_proportions(tmp_path: Path) -> None:
    """A camera writes a tall picture lying down and notes so in EXIF tag 274 (orientation)."""
    image = Image.new("RGB", (60, 30))
    image.paste((255, 0, 0), (0, 0, 30, 30))  # the left half, which orientation 6 turns to the top
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "photo.png", exif=exif)
    picture = grid.open_picture(tmp_path, "photo.png")
    assert picture is not None
    assert picture.shape == (60, 30, 3)
    assert picture[5, 15].tolist() == [255, 0, 0]
    assert picture[55, 15].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "path", ["missing.png", "broken.png", "../outside.png", "/etc/hostname", "a/../../outside.png"]
)
def test_what_can_not_be_shown_is_none(tmp_path: Path, path: str) -> None:
    """Missing, broken, or outside the data folder."""
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    assert grid.open_picture(root, path) is None


def test_right_and_wrong_differ_in_mark_border_and_colour(tmp_path: Path) -> None:
    """More than colour tells them apart; the wrong one names what it was taken for."""
    for name in ("a/0.png", "a/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 20)).save(tmp_path / name)
    chosen = grid.choose_pictures(answers({"a": (1, 1)}), ["a"], np.random.default_rng(0))
    figure, opened, wanted = grid.draw_grid(chosen, tmp_path, "title")
    ax = figure.axes[0]
    assert (opened, wanted, len(ax.images)) == (2, 2, 2)
    words = [text.get_text() for text in ax.texts]
    assert words == ["a", "1 of 2 right", "✓ 50%", "✗ 50%\nother"]
    borders = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_linewidth() > 1]
    assert [to_hex(border.get_edgecolor()).upper() for border in borders] == [grid.RIGHT, grid.WRONG]
    assert [border.get_linewidth() for border in borders] == [1.5, 3]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(2)  # 40 wide, 20 high


def test_without_the_data_folder_the_cells_say_so() -> None:
    """The words are worth having even when the pictures are gone."""
    chosen = grid.choose_pictures(answers({"a": (1, 1)}), ["a"], np.random.default_rng(0))
    figure, opened, wanted = grid.draw_grid(chosen, None, "title")
    assert (opened, wanted) == (0, 2)
    assert [text.get_text() for text in figure.axes[0].texts].count("picture\nnot found") == 2


def test_names_are_drawn_as_they_are_or_as_boxes() -> None:
    """A dollar sign is no formula, a sign that the font lacks is no warning."""
    chosen = grid.choose_pictures(answers({"$a^$": (1, 0), "鳥": (1, 0)}), [], np.random.default_rng(0))
    figure, _, _ = grid.draw_grid(chosen, None, "cost: $5 and $6")
    figure.canvas.draw()  # type: ignore[attr-defined]
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "$a^$" in words
    assert "□" in words
    assert grid.shortened("a_very_long_name_of_a_class", 10) == "a very lo…"

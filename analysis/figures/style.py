"""Colours, axes, names and files that all figures share."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from finetune.system.atomic import replacing

logger = logging.getLogger(__name__)
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells of weights that a font lacks

# Okabe and Ito's palette (jfly.uni-koeln.de/color), which people with any common colour blindness can tell apart.
# Orange and purple are a little darker here, so that they can be read as text on white.
COLOURS = {
    **{"scratch": "#595959", "head": "#A86200", "partial": "#0072B2", "gradual": "#B0558A"},
    **{"lpft": "#C1440E", "full": "#007A5A"},
}
MARKERS = {"scratch": "X", "head": "^", "partial": "s", "gradual": "D", "lpft": "P", "full": "o"}  # not by colour alone
DASHES = {
    **{"scratch": ":", "head": (0, (5, 1.5)), "partial": "-.", "gradual": (0, (8, 2))},
    **{"lpft": (0, (3, 1, 1, 1, 1, 1)), "full": "-"},
}
# Of arms that are more than a strategy, in their order; as readable on white.
OTHER_COLOURS = (
    *("#0072B2", "#A86200", "#007A5A", "#B0558A", "#C1440E", "#595959", "#5B4FB3", "#7A6A00", "#8C2D19", "#1F6F78"),
    *("#6B2C91", "#2E5E1E", "#9A3B5B"),
)
OTHER_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<", ">")
OTHER_DASHES = ("-", "--", "-.", ":", (0, (5, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
WIDTH, HEIGHT, DPI = 6.4, 4.4, 200  # inches; at this size a phone shows 12 points large enough to read
# Fonts with the letters of other scripts, as Linux distributions, macOS and Windows have them.
OTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC"),
    *("Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "NanumGothic"),
    *("Noto Sans Arabic", "Noto Naskh Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Bengali"),
    *("Noto Sans Tamil", "Noto Sans Thai", "Noto Sans", "Segoe UI", "Nirmala UI", "Leelawadee UI", "Arial Unicode MS"),
    *("Noto Emoji", "Segoe UI Emoji"),
)
LEGEND_CHARACTERS = 64  # that fit into a line below the axes
GRID_DPI = 130  # of prediction grids, which are much larger


@cache
def font_families() -> list[str]:
    """Return matplotlib's own font, and those installed that have the letters of other scripts."""
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_FONTS if name in installed)]


# Any: matplotlib types these settings by a list of all their names.
STYLE: Any = {
    "font.family": font_families(),
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "pdf.fonttype": 42,  # text in the PDF stays text
    "text.parse_math": False,  # a class or sweep may have a dollar sign in its name
}


_arms: ContextVar[tuple[str, ...]] = ContextVar("arms", default=())


@contextmanager
def arm_order(arms: Iterable[str]) -> Iterator[None]:
    """Within the block, give each of these arms a style of its own, the same in every figure."""
    token = _arms.set(tuple(arm for arm in arms if arm not in COLOURS))
    try:
        yield
    finally:
        _arms.reset(token)


def colour(arm: str) -> str:
    """Return an arm's colour."""
    return COLOURS.get(arm) or OTHER_COLOURS[_place(arm) % len(OTHER_COLOURS)]


def marker(arm: str) -> str:
    """Return an arm's marker."""
    return MARKERS.get(arm) or OTHER_MARKERS[_place(arm) % len(OTHER_MARKERS)]


def dash(arm: str) -> Any:
    """Return an arm's line style."""
    return DASHES.get(arm) or OTHER_DASHES[_place(arm) % len(OTHER_DASHES)]


def _place(arm: str) -> int:
    arms = _arms.get()
    return arms.index(arm) if arm in arms else 0


def short_names(names: Iterable[str], max_length: int) -> dict[str, str]:
    """Return name -> a text of at most `max_length` characters that fonts here have; different names stay different.

    The middle of a long name is left out. Where that would make two names equal, what they begin with is left out, too.
    """
    full = {name: replace_missing_glyphs(re.sub(r"[\s_]+", " ", name).strip()) for name in names}
    short = {name: _shorten(text, max_length) for name, text in full.items()}
    for alike in _groups(short):
        start = _common_words([full[name] for name in alike])
        if start:
            short |= {name: _shorten("…" + full[name][start:], max_length) for name in alike}
    for alike in _groups(short):
        for number, name in enumerate(alike, 1):
            short[name] = f"{short[name][: max_length - 1 - len(str(number))]}~{number}"
    return short


def _common_words(texts: Sequence[str]) -> int:
    """Return the number of characters of the words that all texts begin with."""
    common = 0
    for index, characters in enumerate(zip(*texts, strict=False), 1):
        if len(set(characters)) > 1:
            break
        common = index if characters[0] == " " else common
    return common


def _groups(short: dict[str, str]) -> list[list[str]]:
    """Return the names that have the same short name, compared without case."""
    groups: dict[str, list[str]] = {}
    for name, text in short.items():
        groups.setdefault(text.casefold(), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _shorten(text: str, max_length: int) -> str:
    """Return the text without its middle if it is too long."""
    if len(text) <= max_length:
        return text
    end = (max_length - 1) // 2
    return f"{text[: max_length - 1 - end]}…{text[len(text) - end :]}"


def replace_missing_glyphs(text: str) -> str:
    """Return the text with a box for each character that no font here has; matplotlib would warn about each one."""
    missing = _missing_glyphs(text)
    if missing:
        _find_new_fonts()
        missing = _missing_glyphs(text)
    if missing:
        _warn_about_fonts()
    return "".join("□" if character in missing else character for character in text)


def _missing_glyphs(text: str) -> set[str]:
    known = [get_font(findfont(FontProperties(family=family))).get_charmap() for family in font_families()]
    return {character for character in text if not any(ord(character) in glyphs for glyphs in known)}


@cache
def _find_new_fonts() -> None:
    """Add the fonts that were installed after matplotlib made its list, which it does once for all times."""
    for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):  # of a font that matplotlib can't read
            fontManager.addfont(path)
    font_families.cache_clear()
    STYLE["font.family"] = font_families()


@cache
def _warn_about_fonts() -> None:
    """Say once how to get the missing letters."""
    logger.warning(
        "some class names have letters that no font here has, and are drawn with boxes: install a font such as Noto "
        "Sans (Debian: fonts-noto-core, and fonts-noto-cjk for Chinese, Japanese and Korean)"
    )


def spread_out(values: list[float], gap: float, top: float) -> list[float]:
    """Return the values, moved so that any two are at least `gap` apart and none is above `top`, in the same order."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    moved = [values[index] for index in order]
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    ceiling = top
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    placed = dict(zip(order, moved, strict=True))
    return [placed[index] for index in range(len(values))]


def set_log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic. On a short one, matplotlib labels minor ticks in TeX, so these get no label."""
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())


def set_percent_axis(ax: Axes, which: str) -> None:
    """Show fractions as per cent on the "x" or "y" axis, and nothing beyond 100%."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
    # Ticks finer than a per cent would have the same labels.
    axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], min_n_ticks=2))
    low, high = ax.get_ylim() if which == "y" else ax.get_xlim()
    if high - low < 0.08:
        middle = (low + high) / 2
        low, high = middle - 0.04, middle + 0.04
    bounds = (max(low, -0.01), min(high, 1.01))
    if which == "y":
        ax.set_ylim(bounds)
    else:
        ax.set_xlim(bounds)


def add_legend_below(ax: Axes, columns: int = 5) -> None:
    """Put the legend outside the axes, where it hides no data.

    Args:
        columns: at most; fewer where names are long.
    """
    handles, names = ax.get_legend_handles_labels()
    columns = min(columns, max(1, LEGEND_CHARACTERS // (max(map(len, names), default=0) + 4)))
    figure = ax.get_figure()
    if handles and figure is not None:
        figure.legend(
            handles, names, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1, handletextpad=0.1
        )


def new_figure(draw: Callable[[Axes], Axes], height: float = HEIGHT) -> Figure:
    """Return a figure with what `draw` draws. It is not registered with pyplot, so it leaks no memory.

    Args:
        height: in inches.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once; each saving would do it again
    return figure


def save_figure(figure: Figure, path: Path, formats: Sequence[str] = ("png", "pdf"), dpi: int = DPI) -> list[Path]:
    """Write a figure in each format; return the files.

    Args:
        path: of the files, without suffix.
    """
    files = [path.with_name(f"{path.name}.{kind}") for kind in formats]
    for file, kind in zip(files, formats, strict=True):
        # Without a creation date, equal figures are equal files.
        metadata: Any = {"CreationDate": None} if kind == "pdf" else None
        with rc_context(STYLE), replacing(file) as temporary:
            figure.savefig(temporary, dpi=dpi, facecolor="white", format=kind, metadata=metadata)
    return files

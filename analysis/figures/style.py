"""Names as a figure can show them: short enough, in signs that the font has."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from PIL import Image

from analysis.drawn import KEY
from finetune.system.atomic import replacing


def shortened(name: str, most: int) -> str:
    """Return a class name that fits, in signs that can be drawn."""
    name = drawable(name.replace("_", " "))
    return name if len(name) <= most else f"{name[: most - 1]}…"


def drawable(text: str) -> str:
    """Return the text with a box for every sign that the font lacks; matplotlib would warn at each one."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(sign if ord(sign) in known else "□" for sign in text)


# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart with every common colour blindness; orange and
# purple are a little darker here, so that they can be read as text on white.
COLOURS = {
    **{"scratch": "#595959", "head": "#A86200", "partial": "#0072B2", "gradual": "#B0558A"},
    **{"lpft": "#C1440E", "full": "#007A5A"},
}


MARKERS = {"scratch": "X", "head": "^", "partial": "s", "gradual": "D", "lpft": "P", "full": "o"}  # not by colour alone


DASHES = {
    **{"scratch": ":", "head": (0, (5, 1.5)), "partial": "-.", "gradual": (0, (8, 2))},
    **{"lpft": (0, (3, 1, 1, 1, 1, 1)), "full": "-"},
}


OTHER = "#000000"


# Any: matplotlib types these settings by a list of all their names.
STYLE: Any = {
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


WIDTH, HEIGHT, DPI = 6.4, 4.4, 200  # inches; at this size 12 points can still be read on a phone


def colour(strategy: str) -> str:
    """Return a strategy's colour."""
    return COLOURS.get(strategy, OTHER)


def spread_out(values: list[float], gap: float, most: float) -> list[float]:
    """Return the values, moved so that any two are at least `gap` apart and none above `most`, their order kept."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    moved = [values[index] for index in order]
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    ceiling = most
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    placed = dict(zip(order, moved, strict=True))
    return [placed[index] for index in range(len(values))]


def log_axis(ax: Axes) -> None:
    """Make the x axis logarithmic, without the labels that minor ticks get on a short one: powers, in TeX's words."""
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())


def percent_axis(ax: Axes, which: str) -> None:
    """Show fractions as per cent on one axis, and nothing beyond 100%."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_formatter(PercentFormatter(1, decimals=0))
    # Ticks finer than a per cent would all read alike.
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


def legend_below(ax: Axes, columns: int = 5) -> None:
    """Put the legend outside the data, where it hides nothing."""
    handles, names = ax.get_legend_handles_labels()
    figure = ax.get_figure()
    if handles and figure is not None:
        figure.legend(
            handles, names, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1, handletextpad=0.1
        )


def new_figure(draw: Callable[[Axes], Axes], height: float = HEIGHT) -> Figure:
    """Return a figure with what `draw` draws. Nothing is registered anywhere, so nothing leaks.

    Args:
        height: in inches.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once; each saving would do it again
    return figure


def paths(path: Path) -> list[Path]:
    """Return the files of a figure, PNG and PDF beside each other, from `path` without its ending."""
    return [path.with_name(path.name + ending) for ending in (".png", ".pdf")]


def save(figure: Figure, path: Path, key: str = "") -> list[Path]:
    """Write a figure as PNG and PDF beside each other (`path` without its ending); return both paths.

    Args:
        key: what it was drawn from (see synthetic_images.py).
    """
    options: list[dict[str, Any]] = [
        {"dpi": DPI, "metadata": {KEY: key}},
        {"metadata": {"CreationDate": None, "Keywords": key}},
    ]
    for target, more in zip(paths(path), options, strict=True):
        with rc_context(STYLE), replacing(target) as temporary:
            figure.savefig(temporary, facecolor="white", format=target.suffix[1:], **more)
    return paths(path)


def embedded_image(path: Path, alt: str, title: str, caption: str, photo: bool = False) -> dict[str, str]:
    """Return a picture as the template needs it. A photo is packed as JPEG, which is a tenth of the PNG."""
    content, kind = path.read_bytes(), "png"
    if photo:
        packed = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(packed, "JPEG", quality=88)
        content, kind = packed.getvalue(), "jpeg"
    address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"src": address, "alt": alt, "title": title, "caption": caption}

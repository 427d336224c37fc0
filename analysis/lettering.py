"""Names as a figure can show them: short enough, in signs that the font has."""

from matplotlib.font_manager import FontProperties, findfont, get_font


def shortened(name: str, most: int) -> str:
    """Return a class name that fits, in signs that can be drawn."""
    name = drawable(name.replace("_", " "))
    return name if len(name) <= most else f"{name[: most - 1]}…"


def drawable(text: str) -> str:
    """Return the text with a box for every sign that the font lacks; matplotlib would warn at each one."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(sign if ord(sign) in known else "□" for sign in text)

"""The page of `finetune.predict --html`: one file that opens offline, the pictures to look at first at its top.

What users named (files, classes, runs) is escaped by the template, and the page may load nothing and run nothing.
"""

import base64
import hashlib
import heapq
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps

from finetune.data.image_io import UNREADABLE, to_rgb
from finetune.system.atomic import replacing
from finetune.system.progress_bar import progress_bar

if TYPE_CHECKING:
    from finetune.inference.predictor import Prediction

TEMPLATE, STYLE = "predict_page.html.j2", "predict_page.css"
SHOWN_TOP = 3  # classes that are told of a picture
FIRST = 24  # pictures to look at first
MAX_SKIPPED = 50  # names of pictures that could not be read
THUMBNAIL_PX, QUALITY = 160, 80  # some 6 kB


class PageContent:
    """What the page tells of the answers: the least confident of them, and counts of all.

    Args:
        limit: answers that are kept.

    Attributes:
        pictures: by predicted class.
        confidence: the sum of them, by predicted class.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pictures = Counter[str]()
        self.confidence = defaultdict[str, float](float)
        self._kept: list[tuple[float, int, Prediction]] = []  # a heap, the most confident first

    def add(self, answer: "Prediction") -> None:
        """Take one more answer into account."""
        name, confidence = answer.ranked[0]
        self.pictures[name] += 1
        self.confidence[name] += confidence
        entry = (-confidence, -self.pictures.total(), answer)
        if len(self._kept) < self.limit:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heappushpop(self._kept, entry)

    def kept(self) -> "list[Prediction]":
        """Return the answers that are kept, the least confident first."""
        return [answer for *_, answer in sorted(self._kept, key=lambda entry: entry[:2], reverse=True)]


def write_page(
    path: Path, gathered: PageContent, run_id: str, temperature: float | None, unreadable: Sequence[str]
) -> None:
    """Write the page, wholly or not at all. Each thumbnail is made when it is written: no more is held in memory.

    Args:
        temperature: of the confidences, or None where they are not calibrated.
        unreadable: a line for each picture that could not be read.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    style = "\n" + (Path(__file__).parent / STYLE).read_text(encoding="utf-8")
    kept, total = gathered.kept(), gathered.pictures.total()
    by_class: dict[str, list[Prediction]] = {}
    for answer in kept[FIRST:]:
        by_class.setdefault(answer.ranked[0][0], []).append(answer)
    with progress_bar("writing the page") as show, replacing(path) as temporary:
        made = 0

        def thumbnail(picture: Path) -> str | None:
            nonlocal made
            made += 1
            show(made, len(kept))
            return _thumbnail(picture)

        stream = environment.get_template(TEMPLATE).stream(
            run=run_id,
            temperature=temperature,
            total=total,
            shown=len(kept),
            classes=[
                (name, count, gathered.confidence[name] / count) for name, count in gathered.pictures.most_common()
            ],
            likely_right=sum(gathered.confidence.values()),
            first=kept[:FIRST],
            others=sorted(by_class.items()),
            skipped=unreadable[:MAX_SKIPPED],
            skipped_more=max(0, len(unreadable) - MAX_SKIPPED),
            thumbnail=thumbnail,
            style=Markup(style),
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(stream)


def visible(text: Any) -> str:
    """Return a name with every character that shows nothing, or turns the direction of writing, as an escape."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))


def _thumbnail(path: Path) -> str | None:
    """Return a picture's small self as a data URI, upright; None where it can't be read any more."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * THUMBNAIL_PX, 2 * THUMBNAIL_PX))  # lets JPEG decode small, many times faster
            picture = to_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE:
        return None
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"

"""The page of `finetune.predict --html`: one file that opens offline, with the least confident predictions first.

The template escapes all names (of files, classes, runs), and the page may load nothing and run nothing.
"""

import base64
import hashlib
import heapq
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from finetune.data.images.image_io import UNREADABLE, read_small
from finetune.system.atomic import replacing
from finetune.system.progress_bar import progress_bar

if TYPE_CHECKING:
    from finetune.inference.predictor import Prediction

TEMPLATE, STYLE = "predict_page.html.j2", "predict_page.css"
SHOWN_TOP = 3  # classes of each prediction
FIRST = 24  # predictions to look at first
MAX_SKIPPED = 50  # names of unreadable images
THUMBNAIL_PX, QUALITY = 160, 80  # some 6 kB


class PageContent:
    """The least confident predictions, and counts of all.

    Args:
        limit: maximum number of predictions on the page.

    Attributes:
        counts: number of images by predicted class.
        confidence: sum of the confidences by predicted class.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts = Counter[str]()
        self.confidence = defaultdict[str, float](float)
        self._shown: list[tuple[float, int, Prediction]] = []  # a heap, the most confident first

    def add(self, prediction: "Prediction") -> None:
        """Count a prediction, and keep it if it is among the least confident ones."""
        name, confidence = prediction.ranked[0]
        self.counts[name] += 1
        self.confidence[name] += confidence
        entry = (-confidence, -self.counts.total(), prediction)
        if len(self._shown) < self.limit:
            heapq.heappush(self._shown, entry)
        else:
            heapq.heappushpop(self._shown, entry)

    def least_confident(self) -> "list[Prediction]":
        """Return the predictions to show, the least confident first."""
        return [prediction for *_, prediction in sorted(self._shown, key=lambda entry: entry[:2], reverse=True)]


def write_page(
    path: Path, content: PageContent, run_id: str, temperature: float | None, unreadable: Sequence[str]
) -> None:
    """Write the page atomically. Makes each thumbnail when it is written, so that memory does not grow.

    Args:
        temperature: of the confidences, None if they are not calibrated.
        unreadable: a line for each unreadable image.
    """
    style = "\n" + (Path(__file__).parent / STYLE).read_text(encoding="utf-8")
    shown, total = content.least_confident(), content.counts.total()
    by_class: dict[str, list[Prediction]] = {}
    for prediction in shown[FIRST:]:
        by_class.setdefault(prediction.ranked[0][0], []).append(prediction)
    with progress_bar("writing the page") as advance, replacing(path) as temporary:
        numbers = itertools.count(1)

        def thumbnail(image: Path) -> str | None:
            advance(next(numbers), len(shown))
            return thumbnail_of(image)

        stream = _load_template().stream(
            run=run_id,
            temperature=temperature,
            total=total,
            shown=len(shown),
            classes=[(name, count, content.confidence[name] / count) for name, count in content.counts.most_common()],
            expected_correct=sum(content.confidence.values()),
            first=shown[:FIRST],
            others=sorted(by_class.items()),
            skipped=unreadable[:MAX_SKIPPED],
            skipped_more=max(0, len(unreadable) - MAX_SKIPPED),
            thumbnail=thumbnail,
            style=Markup(style),
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(stream)


def _load_template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment.get_template(TEMPLATE)


def visible(text: Any) -> str:
    """Return a name with invisible characters, and those that change the writing direction, as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text))


def thumbnail_of(path: Path) -> str | None:
    """Return an upright thumbnail as a data URI; None if the image can't be read any more."""
    try:
        thumbnail = read_small(path, THUMBNAIL_PX)
    except UNREADABLE:
        return None
    packed = io.BytesIO()
    thumbnail.save(packed, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"

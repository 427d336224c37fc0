"""Findings on single image files: damaged ones, and readable ones of a kind that needs care."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath

from PIL import Image

from finetune.data.check.findings import Finding, Rule, SuggestedFix
from finetune.data.images.image_io import DEEP_MODES, MAX_DEPTH
from finetune.data.scan import FileInspection, plain
from finetune.data.transforms import MAX_ASPECT

LOST_SHARE = 0.05  # of a class in a split: if more can't be read, what is left may be another selection
TINY_PX = 32  # short side; the smallest images that networks were made for
ENORMOUS = 50_000_000  # pixels; decoding one takes about a second
DARK_SHARE = 1 / 4  # of the range of 16 bits: values below that are nearly black in 8 bits
SHOWN_CLASSES = 5

Inspections = Mapping[str, FileInspection]  # path inside the data folder -> what the file is


def _is_dark(image: FileInspection) -> bool:
    return image.max_value is not None and image.max_value <= DARK_SHARE * MAX_DEPTH


IMAGE_RULES: tuple[tuple[Rule, Callable[[FileInspection], bool]], ...] = (
    (
        Rule(
            "warning",
            "dark",
            "16 bits a channel, of whose range they use a quarter or less",
            "They come out nearly black: stretch their values to the whole range.",
        ),
        _is_dark,
    ),
    (
        Rule(
            "warning",
            "tiny",
            f"a side of less than {TINY_PX} pixels",
            "They are enlarged and show little; thumbnails among photos are a cue of their own.",
        ),
        lambda image: min(image.size) < TINY_PX,
    ),
    (
        Rule("warning", "blank", "almost one colour", "Look at them: failed exports, perhaps."),
        lambda image: image.perceptual_hash is None,
    ),
    (
        Rule(
            "warning",
            "enormous",
            f"more than {ENORMOUS / 1e6:.0f} million pixels",
            "Each takes a second and up to a gigabyte to decode: 1,000 pixels a side are plenty.",
        ),
        lambda image: image.size[0] * image.size[1] > ENORMOUS,
    ),
    (
        Rule("note", "strip", f"more than {MAX_ASPECT} times as long as wide", "Their middle is used."),
        lambda image: max(image.size) > MAX_ASPECT * min(image.size),
    ),
    (
        Rule("note", "cmyk", "CMYK", "They are converted without a colour profile, which shifts colours a little."),
        lambda image: image.mode == "CMYK",
    ),
    (
        Rule("note", "deep", "more than 8 bits a channel", "The upper 8 are used."),
        lambda image: image.mode in DEEP_MODES and not _is_dark(image),
    ),
    (Rule("note", "transparent", "transparent in places", "They are laid on white."), lambda image: image.transparent),
    (Rule("note", "palette", "a palette of colours", "They are converted to RGB."), lambda image: image.mode in "PA"),
    (Rule("note", "animated", "several frames", "The first is used."), lambda image: image.animated),
    (
        Rule(
            "note",
            "turned",
            "turned by their EXIF orientation",
            "Runs turn them upright; other programs may show them lying on their side.",
        ),
        lambda image: image.turned,
    ),
)
MISNAMED = Rule(
    "note",
    "suffix",
    "of another kind than their suffix says",
    "Runs read them by their content; other programs may refuse them.",
)


def file_findings(inspections: Inspections, split_and_class: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    """Yield the findings on single files; `split_and_class` has both for each path."""
    readable = {path: image for path, image in inspections.items() if image.reason is None}
    yield from _unreadable(inspections, split_and_class)
    for rule, applies in IMAGE_RULES:
        yield from rule.findings([f"{path} ({_describe(image)})" for path, image in readable.items() if applies(image)])
    yield from MISNAMED.findings_of_kinds(
        {
            path: kind
            for path, image in readable.items()
            if (kind := plain(image.kind)) != _kind_of_suffix().get(PurePosixPath(path).suffix.lower(), kind)
        }
    )


def _unreadable(inspections: Inspections, split_and_class: Mapping[str, tuple[str, str]]) -> list[Finding]:
    """Return the finding on files that can't be decoded: an error if a class loses many."""
    damaged = {path: image.reason for path, image in inspections.items() if image.reason is not None}
    sizes = Counter(split_and_class[path] for path in inspections)
    lost = Counter(split_and_class[path] for path in damaged)
    hit = [
        " of ".join(filter(None, (label, split)))
        for (split, label), count in lost.items()
        if count > LOST_SHARE * sizes[split, label]
    ]
    more = " and others" if len(hit) > SHOWN_CLASSES else ""
    detail = f"; {', '.join(hit[:SHOWN_CLASSES])}{more} would lose more than {LOST_SHARE:.0%}" if hit else ""
    rule = Rule(
        "error" if hit else "warning",
        "unreadable",
        "can't be decoded",
        "Get them again, or take them out; runs leave them out by name.",
    )
    return rule.findings(
        [f"{path}: {why}" for path, why in damaged.items()],
        [SuggestedFix(path, "remove", "", str(why)) for path, why in damaged.items()],
        detail,
    )


def _describe(image: FileInspection) -> str:
    values = f", values up to {image.max_value}" if image.max_value is not None else ""
    return f"{image.kind}, {image.mode}, {image.size[0]} x {image.size[1]}{values}"


@cache
def _kind_of_suffix() -> dict[str, str]:
    return {**Image.registered_extensions(), ".tif": "TIFF", ".jpg": "JPEG"}

"""Findings on single images: damaged, and decodable but of a kind that needs care."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import PurePosixPath

from PIL import Image

from finetune.data.check.findings import Finding, SuggestedFix
from finetune.data.image_io import DEEP_MODES, MAX_DEPTH
from finetune.data.scan import FileInspection, plain, suffix_of
from finetune.data.transforms import MAX_ASPECT
from finetune.system.output import count_text

Looks = Mapping[str, FileInspection]  # path inside the data folder -> what it is

LOST_SHARE = 0.05  # of a class in a split: where more can't be read, what is left may be another selection
TINY_PX = 32  # short side; the smallest images that networks were made for
ENORMOUS = 50_000_000  # pixels; decoding one takes about a second
DARK_SHARE = 1 / 4  # of the range of 16 bits: what lies below is nearly black in 8 bits


def file_findings(looks: Looks, place_of: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    """Yield what is wrong with single images.

    Args:
        place_of: path -> (split, class).
    """
    yield from _unreadable(looks, place_of)
    yield from _of_kinds({path: one for path, one in looks.items() if one.why is None})
    yield from _misnamed(looks)


def _unreadable(looks: Looks, place_of: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    damaged = {path: one.why for path, one in looks.items() if one.why is not None}
    if not damaged:
        return
    all_of: defaultdict[tuple[str, str], int] = defaultdict(int)
    lost: defaultdict[tuple[str, str], int] = defaultdict(int)
    for path in looks:
        all_of[place_of[path]] += 1
        lost[place_of[path]] += path in damaged
    hit = [f"{' of '.join(filter(None, (label, part)))}" for (part, label), n in lost.items()
           if n > LOST_SHARE * all_of[part, label]]  # fmt: skip
    text = f"can't be decoded: {count_text(len(damaged), 'image')}"
    if hit:
        text += f"; {', '.join(hit[:5])}{' and others' if len(hit) > 5 else ''} would lose more than {LOST_SHARE:.0%}"
    yield Finding(
        "error" if hit else "warning", "unreadable", text,
        "Get them anew, or take them out; runs leave them out by name.",
        tuple(f"{path}: {why}" for path, why in damaged.items()),
        tuple(SuggestedFix(path, "remove", "", str(why)) for path, why in damaged.items()),
    )  # fmt: skip


def _of_kinds(looks: Looks) -> Iterator[Finding]:
    """Yield a finding for each kind of image that is there."""
    kinds: list[tuple[str, str, str, str, Callable[[FileInspection], bool]]] = [
        ("warning", "dark", "16 bits a channel, of whose range they use a quarter or less",
         "They come out nearly black: stretch their values to the whole range.", _is_dark),
        ("warning", "tiny", f"a side of less than {TINY_PX} pixels",
         "They are enlarged to what the network sees, and show little; thumbnails among photos are a cue of their own.",
         lambda one: min(one.size) < TINY_PX),
        ("warning", "blank", "almost one colour", "Look at them: failed exports, perhaps.",
         lambda one: one.trace is None),
        ("warning", "enormous", f"more than {ENORMOUS / 1e6:.0f} million pixels",
         "Each takes a second and up to a gigabyte to decode: make them smaller, 1,000 pixels a side are plenty.",
         lambda one: one.size[0] * one.size[1] > ENORMOUS),
        ("note", "strip", f"more than {MAX_ASPECT} times as long as wide", "Their middle is used.",
         lambda one: max(one.size) > MAX_ASPECT * min(one.size)),
        ("note", "cmyk", "CMYK", "They are converted without a colour profile, which shifts colours a little.",
         lambda one: one.mode == "CMYK"),
        ("note", "deep", "more than 8 bits a channel", "The upper 8 are used.",
         lambda one: one.mode in DEEP_MODES and not _is_dark(one)),
        ("note", "transparent", "transparent in places", "They are laid on white.", lambda one: one.clear),
        ("note", "palette", "a palette of colours", "They are converted to RGB.", lambda one: one.mode in "PA"),
        ("note", "animated", "several frames", "The first is used.", lambda one: one.animated),
        ("note", "turned", "turned by their EXIF orientation",
         "That is respected here; other programs may see them lying on their side.", lambda one: one.turned),
    ]  # fmt: skip
    for level, kind, text, mend, is_so in kinds:
        found = [path for path, one in looks.items() if is_so(one)]
        if found:
            lines = tuple(f"{path} ({_described(looks[path])})" for path in found)
            yield Finding(level, kind, f"{text}: {count_text(len(found), 'image')}", mend, lines)  # type: ignore[arg-type]


def _is_dark(one: FileInspection) -> bool:
    return one.top is not None and one.top <= DARK_SHARE * MAX_DEPTH


def _described(one: FileInspection) -> str:
    more = f", values up to {one.top}" if one.top is not None else ""
    return f"{one.kind}, {one.mode}, {one.size[0]} x {one.size[1]}{more}"


def _misnamed(looks: Looks) -> Iterator[Finding]:
    """Yield those whose name says another kind of file than they are."""
    found = {}
    for path, one in looks.items():
        kind = plain(one.kind)
        said = _kind_of_suffix().get(PurePosixPath(path).suffix.lower())
        if one.why is None and said is not None and kind != said:
            found[path] = kind
    if not found:
        return
    fixes = [SuggestedFix(path, "rename", str(PurePosixPath(path).with_suffix(suffix_of(kind))), f"it is {kind}")
             for path, kind in found.items()]  # fmt: skip
    yield Finding(
        "note", "suffix", f"of another kind than their suffix says: {count_text(len(found), 'image')}",
        "They are read by their content here; other programs may refuse them.",
        tuple(f"{path} is {kind}" for path, kind in found.items()), tuple(fixes),
    )  # fmt: skip


@cache
def _kind_of_suffix() -> dict[str, str]:
    return {**Image.registered_extensions(), ".tif": "TIFF", ".jpg": "JPEG"}

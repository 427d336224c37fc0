"""Inspects image files: whether they can be decoded, their kind, and which look the same."""

import contextlib
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import PIL
from PIL import Image

from finetune.data.duplicates import SIDE, PerceptualHash, near_copies, perceptual_hash
from finetune.data.images.image_io import (
    DEEP_MODES,
    UNREADABLE,
    decode,
    has_alpha,
    map_ahead,
    max_pixels,
    reason_of,
    to_rgb,
)
from finetune.data.images.image_metadata import UPRIGHT, orientation_of, turn
from finetune.system.atomic import delete_stale_temporaries
from finetune.system.checksums import read_checked_json, write_checked_json
from finetune.system.environment import cache_folder, cores
from finetune.system.progress_bar import progress_bar

MIN_IMAGES_FOR_BAR = 200
AHEAD = 16  # images per thread that are inspected in advance
LARGE_PIXELS = 30_000_000  # larger images are decoded one after the other, for the memory they take
SCAN_VERSION = 4  # to be raised when other images count as readable, or as alike
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class FileInspection:
    """What a file is.

    Attributes:
        reason: why it can't be decoded, else None; if it can't, the rest is only what its header says.
        kind: such as JPEG, by content and not by name; "" if it is no image.
        mode: Pillow's, such as RGB, CMYK, P, I;16.
        size: (width, height) in pixels, as stored.
        turned: EXIF says to turn or mirror it for viewing.
        animated: it has several frames, of which the first is used.
        max_value: of images with more than 8 bits a channel.
        perceptual_hash: None if it can't be decoded, or is of one colour.
    """

    reason: str | None
    kind: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    animated: bool = False
    transparent: bool = False
    max_value: int | None = None
    perceptual_hash: PerceptualHash | None = None


@dataclass(frozen=True)
class ScanResult:
    """Unreadable images, and images that look the same; paths are inside the data folder.

    Attributes:
        unreadable: path -> why it can't be decoded (see image_io.py).
        alike: groups of images that look the same; None if there are too many for it to mean anything.
    """

    unreadable: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[Sequence[str]] | None = ()


def inspect_files(root: Path, paths: Sequence[str], title: str = "looking at the images") -> dict[str, FileInspection]:
    """Return path -> inspection; several threads work, as Pillow decodes outside of Python's lock.

    Args:
        paths: relative to `root`.
    """
    inspections: dict[str, FileInspection] = {}
    results = map_ahead(lambda path: inspect_file(root / path), paths, cores(), AHEAD * cores())
    with (
        warnings.catch_warnings(),
        contextlib.closing(results),
        progress_bar(title, len(paths) < MIN_IMAGES_FOR_BAR) as advance,
    ):
        warnings.simplefilter("ignore")  # Pillow's, on odd files; what matters is in the result
        for path, inspection in zip(paths, results, strict=True):
            inspections[path] = inspection
            advance(len(inspections), len(paths))
    return inspections


def inspect_file(path: Path) -> FileInspection:
    """Inspect one file.

    Pillow shrinks a JPEG while decoding it: all of its bytes are read, in a third of the time.
    """
    header = FileInspection(None)

    def inspect(image: Image.Image) -> FileInspection:
        nonlocal header
        header = _inspect_header(image)
        if image.mode == "RGB":
            image.draft("L", (2 * SIDE, 2 * SIDE))
        large = image.width * image.height > LARGE_PIXELS
        with _one_at_a_time if large else nullcontext():
            return _inspect_pixels(image, header)

    try:
        if not path.stat().st_size:
            return FileInspection("the file is empty")
        return decode(path, inspect)
    except UNREADABLE as error:
        return replace(header, reason=reason_of(error))


def _inspect_header(image: Image.Image) -> FileInspection:
    return FileInspection(
        None,
        kind=str(image.format),
        mode=image.mode,
        size=image.size,
        turned=image.format == "TIFF" and orientation_of(image) != UPRIGHT,  # which loading turns
        animated=plain(image.format) != "JPEG" and bool(getattr(image, "is_animated", False)),
    )


def _inspect_pixels(image: Image.Image, header: FileInspection) -> FileInspection:
    image.load()
    rgb = to_rgb(image) if image.mode not in ("RGB", "L") else image
    orientation = orientation_of(image)
    return replace(
        header,
        turned=header.turned or orientation != UPRIGHT,
        transparent=has_alpha(image),
        max_value=int(image.getextrema()[1]) if image.mode in DEEP_MODES else None,  # type: ignore[arg-type]
        perceptual_hash=perceptual_hash(turn(rgb, orientation)),
    )


def plain(kind: str | None) -> str:
    """Return a file's kind without its variants: MPO, which phones write, is JPEG followed by further images."""
    return "JPEG" if kind == "MPO" else str(kind)


def suffix_of(kind: str) -> str:
    """Return the usual suffix of this kind of file."""
    return {"JPEG": ".jpg", "TIFF": ".tif"}.get(plain(kind), f".{kind.lower()}")


def load_or_scan(root: Path, paths: Sequence[str], fingerprint: str) -> ScanResult:
    """Scan all images, or read the result of an earlier scan from the user's cache.

    Args:
        paths: relative to `root`.
        fingerprint: of the data (see `catalog.fingerprint`).
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        saved = read_checked_json(_saved_scan(fingerprint))
        if saved is not None and saved["pictures"] == len(paths):
            return ScanResult(dict(saved["unreadable"]), saved["alike"])
    scan = summarise(inspect_files(root, paths, "looking for damaged images and copies"))
    save_scan(scan, len(paths), fingerprint)
    return scan


def summarise(inspections: Mapping[str, FileInspection]) -> ScanResult:
    """Return which of the inspected images are unreadable or look the same."""
    paths = list(inspections)
    with progress_bar("comparing the images", len(paths) < MIN_IMAGES_FOR_BAR) as advance:
        pairs = near_copies([image.perceptual_hash for image in inspections.values()], advance)
    unreadable = {path: image.reason for path, image in inspections.items() if image.reason is not None}
    groups = None if pairs is None else merge_overlapping([(paths[i], paths[j]) for i, j in pairs])
    return ScanResult(unreadable, groups)


def save_scan(scan: ScanResult, images: int, fingerprint: str) -> None:
    """Save a scan in the user's cache; if that fails, the next run scans again."""
    with contextlib.suppress(OSError):
        file = _saved_scan(fingerprint)
        file.parent.mkdir(parents=True, exist_ok=True)
        delete_stale_temporaries(file.parent)
        write_checked_json(file, {"pictures": images, "unreadable": scan.unreadable, "alike": scan.alike})


def merge_overlapping(groups: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return the groups with those that share a member merged; members and groups keep the order of their first."""
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]  # shortens the path for the next call
            name = leader[name]
        return name

    for group in groups:
        for name in group:
            leader.setdefault(name, name)
            leader[lead(name)] = lead(group[0])
    merged: dict[str, list[str]] = {}
    for name in leader:
        merged.setdefault(lead(name), []).append(name)
    return list(merged.values())


def _saved_scan(fingerprint: str) -> Path:
    return cache_folder() / "surveys" / f"{fingerprint}-{SCAN_VERSION}-{PIL.__version__}-{max_pixels()}.json"

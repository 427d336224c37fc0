"""One look at an image file: whether it can be decoded, of what kind it is, and what tells near copies of it."""

import contextlib
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import PIL
from PIL import Image, ImageOps

from finetune.data.duplicates import SIDE, PerceptualHash, near_copies, perceptual_hash
from finetune.data.image_io import DEEP_MODES, UNREADABLE, has_alpha, max_pixels, open_image, reason_of, to_rgb
from finetune.system.atomic import delete_stale_temporaries
from finetune.system.checksums import read_checked_json, write_checked_json
from finetune.system.environment import cache_folder, cores
from finetune.system.progress_bar import progress_bar

MIN_PX = 200  # images; fewer need no bar
LARGE_PIXELS = 30_000_000  # pixels; so large ones are decoded one after the other, for the memory they take
UPRIGHT = 1  # EXIF's orientation of an image that need not be turned
ORIENTATION = 0x0112
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class FileInspection:
    """What a file is.

    Attributes:
        why: it can't be decoded, or None; then what follows is known as far as its header tells.
        kind: such as JPEG, by the content and not by the name; "" where it is no image.
        mode: of Pillow, such as RGB, CMYK, P, I;16.
        size: (width, height) in pixels, as stored.
        turned: EXIF says that it is to be turned or mirrored for viewing.
        animated: it has several frames, of which the first is used.
        clear: parts of it are transparent.
        top: the largest value, of images with more than 8 bits a channel.
        trace: what tells near copies; None where it can't be decoded, or is of one colour.
    """

    why: str | None
    kind: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    animated: bool = False
    clear: bool = False
    top: int | None = None
    trace: PerceptualHash | None = None


def inspect_files(root: Path, paths: Sequence[str], title: str = "looking at the images") -> dict[str, FileInspection]:
    """Return path -> what the file is. Several at once: Pillow decodes outside of Python's lock.

    Args:
        root: of the data, which the paths start from.
    """
    found: dict[str, FileInspection] = {}
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(cores()) as pool,
        progress_bar(title, len(paths) < MIN_PX) as show,
    ):
        warnings.simplefilter("ignore")  # of Pillow, on odd files; what matters is in the result
        for path, one in zip(paths, pool.map(lambda path: inspect_file(root / path), paths), strict=True):
            found[path] = one
            show(len(found), len(paths))
    return found


def inspect_file(path: Path) -> FileInspection:
    """Return what a file is.

    A JPEG is brought to a fraction of its size while it is decoded: all of its bytes are read, for a third of the time.
    """
    known = FileInspection(None)
    try:
        if not path.stat().st_size:
            return FileInspection("the file is empty")
        with open_image(path) as image:
            known = FileInspection(
                None,
                kind=str(image.format),
                mode=image.mode,
                size=image.size,
                turned=image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT,
                animated=plain(image.format) != "JPEG" and bool(getattr(image, "is_animated", False)),
            )
            if image.mode == "RGB":
                image.draft("L", (2 * SIDE, 2 * SIDE))
            large = image.width * image.height > LARGE_PIXELS
            with _one_at_a_time if large else nullcontext():
                return _decoded(image, known)
    except UNREADABLE as error:
        return FileInspection(reason_of(error), known.kind, known.mode, known.size)


def plain(kind: str | None) -> str:
    """Return a kind of file without its variants: phones write JPEG files with further images behind, called MPO."""
    return "JPEG" if kind == "MPO" else str(kind)


def suffix_of(kind: str) -> str:
    """Return the suffix that files of this kind mostly have."""
    return {"JPEG": ".jpg", "TIFF": ".tif"}.get(plain(kind), f".{kind.lower()}")


def _decoded(image: Image.Image, known: FileInspection) -> FileInspection:
    image.load()
    deep = image.mode in DEEP_MODES
    upright = to_rgb(image) if image.mode not in ("RGB", "L") else image
    return FileInspection(
        None,
        known.kind,
        known.mode,
        known.size,
        known.turned,
        known.animated,
        clear=has_alpha(image),
        top=int(image.getextrema()[1]) if deep else None,  # type: ignore[arg-type]
        trace=perceptual_hash(ImageOps.exif_transpose(upright)),
    )


SCAN_VERSION = 3  # to be raised when other images count as readable, or as alike


@dataclass(frozen=True)
class ScanResult:
    """What is wrong with single images, and which belong together; paths are inside the data folder.

    Attributes:
        unreadable: path -> why it can't be decoded (see image_io.py).
        alike: groups of images that look the same; None where so many do that it means nothing.
    """

    unreadable: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[Sequence[str]] | None = ()


def load_or_scan(root: Path, paths: Sequence[str], fingerprint: str) -> ScanResult:
    """Return what a look at all images finds; the second time it is read from the user's cache.

    Args:
        root: of the data, which the paths start from.
        fingerprint: of the data (see `catalog.fingerprint`).
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = read_checked_json(_saved_scan(fingerprint))
        if known is not None and known["pictures"] == len(paths):
            return ScanResult(dict(known["unreadable"]), known["alike"])
    found = summarise(inspect_files(root, paths, "looking for damaged images and copies"))
    save_scan(found, len(paths), fingerprint)
    return found


def summarise(looks: Mapping[str, FileInspection]) -> ScanResult:
    """Return what these looks come to."""
    paths = list(looks)
    with progress_bar("comparing the images", len(paths) < MIN_PX) as show:
        pairs = near_copies([looks[path].trace for path in paths], show=show)
    unreadable = {path: one.why for path, one in looks.items() if one.why is not None}
    groups = None if pairs is None else merge_overlapping([(paths[i], paths[j]) for i, j in pairs])
    return ScanResult(unreadable, groups)


def save_scan(found: ScanResult, images: int, fingerprint: str) -> None:
    """Keep a survey in the user's cache; one that can't be written costs time and nothing else."""
    with contextlib.suppress(OSError):
        kept = _saved_scan(fingerprint)
        kept.parent.mkdir(parents=True, exist_ok=True)
        delete_stale_temporaries(kept.parent)
        write_checked_json(kept, {"pictures": images, "unreadable": found.unreadable, "alike": found.alike})


def merge_overlapping(groups: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return groups that share a member as one; members, and groups by their first, in the order in which they come."""
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]  # shortens the way for the next time
            name = leader[name]
        return name

    for group in groups:
        for name in group:
            leader.setdefault(name, name)
            leader[lead(name)] = lead(group[0])
    found: dict[str, list[str]] = {}
    for name in leader:
        found.setdefault(lead(name), []).append(name)
    return list(found.values())


def _saved_scan(fingerprint: str) -> Path:
    return cache_folder() / "surveys" / f"{fingerprint}-{SCAN_VERSION}-{PIL.__version__}-{max_pixels()}.json"

"""What a look at all pictures finds, kept for the data as it is: which can't be decoded, which look the same.

Every file is decoded once, as cheaply as shows all faults, before a run starts. So a damaged file is left out by name
and never met in mid-epoch, and copies stay on one side of a split.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import PIL

from finetune.data.alike import near_copies
from finetune.data.looking import LEAST, Look, look_over
from finetune.data.reading import most_pixels
from finetune.system.atomic import delete_stale_temporaries
from finetune.system.checksums import read_checked_json, write_checked_json
from finetune.system.environment import cache_folder
from finetune.system.progress_bar import progress_bar

VERSION = 3  # to be raised when other pictures count as readable, or as alike


@dataclass(frozen=True)
class Survey:
    """What is wrong with single pictures, and which belong together; paths are inside the data folder.

    Attributes:
        unreadable: path -> why it can't be decoded (see reading.py).
        alike: groups of pictures that look the same; None where so many do that it means nothing.
    """

    unreadable: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[Sequence[str]] | None = ()


def survey(root: Path, paths: Sequence[str], fingerprint: str) -> Survey:
    """Return what a look at all pictures finds; the second time it is read from the user's cache.

    Args:
        root: of the data, which the paths start from.
        fingerprint: of the data (see `catalog.fingerprint`).
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = read_checked_json(_kept(fingerprint))
        if known is not None and known["pictures"] == len(paths):
            return Survey(dict(known["unreadable"]), known["alike"])
    found = surveyed(look_over(root, paths, "looking for damaged pictures and copies"))
    keep(found, len(paths), fingerprint)
    return found


def surveyed(looks: Mapping[str, Look]) -> Survey:
    """Return what these looks come to."""
    paths = list(looks)
    with progress_bar("comparing the pictures", len(paths) < LEAST) as show:
        pairs = near_copies([looks[path].trace for path in paths], show=show)
    unreadable = {path: one.why for path, one in looks.items() if one.why is not None}
    groups = None if pairs is None else together([(paths[i], paths[j]) for i, j in pairs])
    return Survey(unreadable, groups)


def keep(found: Survey, pictures: int, fingerprint: str) -> None:
    """Keep a survey in the user's cache; one that can't be written costs time and nothing else."""
    with contextlib.suppress(OSError):
        kept = _kept(fingerprint)
        kept.parent.mkdir(parents=True, exist_ok=True)
        delete_stale_temporaries(kept.parent)
        write_checked_json(kept, {"pictures": pictures, "unreadable": found.unreadable, "alike": found.alike})


def together(groups: Iterable[Sequence[str]]) -> list[list[str]]:
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


def _kept(fingerprint: str) -> Path:
    return cache_folder() / "surveys" / f"{fingerprint}-{VERSION}-{PIL.__version__}-{most_pixels()}.json"

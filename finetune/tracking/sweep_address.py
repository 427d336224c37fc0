"""The address of a sweep on a W&B server, as users write it and as `wandb.json` holds it. Makes no request."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from finetune.rundir.keys import REMOTE
from finetune.system.documents import load_yaml, read_json
from finetune.system.environment import ROOT

SWEEP_ID = re.compile(r"[a-z0-9]{8}")
FOLDERS = ("runs", "reports", "sweeps", ".", "..")  # as first part they begin a local path, not an address
NAME = re.compile(r"[^/\\#?%:\x00-\x1f]+")  # W&B's entities and projects
DEFAULT_SWEEP_FILE = ROOT / "sweeps" / "strategies.yaml"


@dataclass(frozen=True)
class SweepAddress:
    """A sweep on a W&B server; entity and project are None where the user left them out."""

    entity: str | None
    project: str | None
    id: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.id) if part)


def parse_sweep_address(text: str) -> SweepAddress | None:
    """Parse `id`, `project/id`, `entity/project/id` or the URL of a sweep's page; None for anything else.

    A local path is not an address, even if it looks like one.
    """
    if "://" in text:
        return _parse_url(text)
    *names, sweep = text.split("/")
    if len(names) > 2 or (names and names[0] in FOLDERS) or (len(names) == 1 and Path(text).exists()):
        return None
    entity, project = [None, None, *names][-2:]
    return _checked(entity, project, sweep)


def _parse_url(url: str) -> SweepAddress | None:
    # A server below a path has parts before the entity; a tab of the page has parts after the id.
    try:
        parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
    except ValueError:  # such as an invalid IPv6 host
        return None
    for index in range(2, len(parts) - 1):
        if parts[index] == "sweeps" and SWEEP_ID.fullmatch(parts[index + 1]):
            return _checked(parts[index - 2], parts[index - 1], parts[index + 1])
    return None


def _checked(entity: str | None, project: str | None, sweep: str) -> SweepAddress | None:
    names = [name for name in (entity, project) if name is not None]
    is_valid = SWEEP_ID.fullmatch(sweep) and all(NAME.fullmatch(name) for name in names)
    return SweepAddress(entity, project, sweep) if is_valid else None


def folder_address(folder: Path) -> SweepAddress | None:
    """Return the W&B sweep that a folder of run directories belongs to, from its `wandb.json`; None if unknown."""
    try:
        content = read_json(folder / REMOTE) or {}
    except (OSError, TypeError, ValueError):
        return None
    parts = [content.get(key) for key in ("entity", "project", "sweep")]
    return _checked(*map(str, parts)) if all(parts) else None


def default_project() -> str:
    """Return the project of sweeps that are named by their id alone: WANDB_PROJECT, else the default sweep file's."""
    try:
        project = load_yaml(DEFAULT_SWEEP_FILE.read_text(encoding="utf-8")).get("project")
    except (OSError, AttributeError, yaml.YAMLError):
        project = None
    return os.environ.get("WANDB_PROJECT") or str(project or "finetune-sweeps")

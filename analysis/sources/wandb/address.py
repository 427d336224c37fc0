"""Which sweep on a W&B server is meant."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from finetune.rundir.keys import REMOTE
from finetune.system import documents
from finetune.system.documents import read_json
from finetune.system.environment import ROOT

ID = re.compile(r"[a-z0-9]{8}")
FOLDERS = ("runs", "reports", ".", "..")  # what begins a path here, not the name of a project
NAME = re.compile(r"[^/\\#?%:\x00-\x1f]+")  # of an entity or a project, as W&B has them
SWEEP_FILE = ROOT / "sweeps" / "strategies.yaml"  # its project is where this repository's runs go


@dataclass(frozen=True)
class Address:
    """A sweep on a W&B server.

    Attributes:
        entity, project: None where they are left to the account and to `default_project`.
        sweep: its id.
    """

    entity: str | None
    project: str | None
    sweep: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.sweep) if part)


def parse(text: str) -> Address | None:
    """Read a sweep's id, project/id, entity/project/id, or its page's address in a browser; None for anything else.

    What is the path of something here is that.
    """
    if "://" in text:
        # There may be parts before the entity (a server below a path) and behind the id (a tab of the page).
        try:
            parts = [unquote(part) for part in urlsplit(text).path.split("/") if part]
        except ValueError:  # a bracket that begins no address of version 6
            return None
        for index in range(2, len(parts) - 1):
            if parts[index] == "sweeps" and ID.fullmatch(parts[index + 1]):
                return _checked(parts[index - 2], parts[index - 1], parts[index + 1])
        return None
    if ID.fullmatch(text):
        return Address(None, None, text)
    parts = text.split("/")
    if len(parts) == 2 and parts[0] not in FOLDERS and not Path(text).exists():
        return _checked(None, *parts)
    return _checked(*parts) if len(parts) == 3 else None


def _checked(entity: str | None, project: str, sweep: str) -> Address | None:
    known = (entity is None or NAME.fullmatch(entity)) and NAME.fullmatch(project) and ID.fullmatch(sweep)
    return Address(entity, project, sweep) if known else None


def of_folder(folder: Path) -> Address | None:
    """Return the W&B sweep that a folder of run directories belongs to, as its `wandb.json` says; else None."""
    try:
        told = read_json(folder / REMOTE) or {}
    except (OSError, TypeError, ValueError):
        return None
    parts = [told.get(name) for name in ("entity", "project", "sweep")]
    return _checked(*map(str, parts)) if all(parts) else None


def default_project() -> str:
    """Return the project of a sweep that is named by its id alone."""
    try:
        told = documents.load_yaml(SWEEP_FILE.read_text(encoding="utf-8")).get("project")
    except (OSError, AttributeError, yaml.YAMLError):
        told = None
    return os.environ.get("WANDB_PROJECT") or str(told or "finetune-sweeps")

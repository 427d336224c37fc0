"""Imports go one way: each room imports only rooms to its left, also inside functions and for types only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

PACKAGES = ("finetune", "analysis", "benchmarks", "chaos", "notebooks")
# From left to right; a room is a module or a folder, without the rooms inside of it. `finetune.data.demo` draws images
# and knows nothing of `finetune.data`, which offers them as a data set; `finetune.data.check` looks at any data set.
# The modules of the folders `finetune` and `analysis` that are no rooms of their own are the commands.
ORDER = """
    finetune.errors  finetune.seeds  finetune.system  finetune.config  finetune.resolve  finetune.config_flags
    finetune.pretrained  finetune.rundir  finetune.data.demo  finetune.data.images  finetune.data
    finetune.data.check  finetune.models
    finetune.cache  finetune.training  finetune.run  finetune.inference  finetune.tracking
    finetune.sweep  finetune.sweep.forecast  finetune.sweep.agents  finetune.data.__main__  finetune  agent
    analysis.errors  analysis.formatting  analysis.stats  analysis.sources.wandb  analysis.sources  analysis.tables
    analysis.figures  analysis.report  analysis.report.wandb  analysis.pipeline  analysis
    benchmarks  benchmarks.peers  benchmarks.oneoff  chaos  chaos.hook  notebooks
""".split()  # noqa: SIM905
MAX_MODULES = 15  # of a folder


def _module(path: Path) -> str:
    """Return the dotted name of a source file; that of a package ends with __init__."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = [ROOT / "agent.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
MODULES = {_module(path) for path in FILES}


def imported(source: str, module: str) -> Iterator[str]:
    """Yield the modules that the source of this module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*start, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if {name, f"{name}.__init__"} & MODULES else base for name in names)


def room(module: str) -> str | None:
    """Return the room of a module, the longest in ORDER that its name begins with; None outside of the project."""
    parents = [module.rsplit(".", count)[0] for count in range(module.count(".") + 1)]
    return next((parent for parent in parents if parent in ORDER), None)


def wrong_imports(source: str, module: str) -> list[str]:
    """Return the imports of this module that go to the right."""
    own = ORDER.index(room(module) or "")
    rooms = {name: room(name) for name in imported(source, module)}
    return [f"{module} imports {name}" for name, other in rooms.items() if other and ORDER.index(other) > own]


def test_each_room_imports_only_rooms_to_its_left() -> None:
    """So there is no circle between rooms, and nothing in finetune imports analysis."""
    assert [line for path in FILES for line in wrong_imports(path.read_text(), _module(path))] == []


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import finetune.run.run", "finetune.system.atomic"),
        ("from finetune.run import checkpoint as c", "finetune.models.weights"),
        ("from finetune import config", "finetune.errors"),
        ("from ..run import run", "finetune.cache.store"),
        ("from .cache.store import Store", "finetune.resolve"),
        ("from .agents import local_agent", "finetune.sweep.plan"),
        ("from .. import __main__", "finetune.sweep.__init__"),
        ("def late():\n    from finetune.sweep.plan import SweepPlan", "finetune.tracking.wandb_run"),
        ("if TYPE_CHECKING:\n    from analysis.sources.sweep import Sweep", "finetune.run.run"),
        ("from analysis.pipeline import build_report", "analysis.report.html"),
        ("import agent", "finetune.predict"),
    ],
)
def test_an_import_to_the_right_is_found(source: str, module: str) -> None:
    """Absolute, relative, lazy and for types only."""
    assert len(wrong_imports(source, module)) == 1


def test_an_import_to_the_left_or_of_a_library_is_allowed() -> None:
    """Also within a room."""
    source = "import torch\nfrom finetune.models import weights\nfrom .metrics import BINS\nfrom .. import errors"
    names = ["torch", "finetune.models.weights", "finetune.training.metrics", "finetune.errors"]
    assert list(imported(source, "finetune.training.loop")) == names
    assert wrong_imports(source, "finetune.training.loop") == []


def test_every_folder_is_a_room_with_a_docstring_and_few_modules() -> None:
    """Its `__init__` holds the docstring alone, so that importing a module imports nothing else on the way."""
    faults = []
    for folder in sorted({path.parent for path in FILES} - {ROOT}):
        name = ".".join(folder.relative_to(ROOT).parts)
        if name not in ORDER:
            faults.append(f"{name} is not in the order of imports")
        if (init := folder / "__init__.py").exists():
            tree = ast.parse(init.read_text())
            if len(tree.body) != 1 or ast.get_docstring(tree) in (None, "TODO"):
                faults.append(f"{name}.__init__ is not only a docstring")
    for folder in {path.parent for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]}:
        count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        if count > MAX_MODULES:
            faults.append(f"{folder.relative_to(ROOT)} has {count} modules, more than {MAX_MODULES}")
    assert faults == []


def test_importing_analysis_loads_neither_torch_nor_wandb() -> None:
    """No module of the analysis needs torch; wandb is imported only when it is needed, so bad input fails at once."""
    names = sorted(name.removesuffix(".__init__") for name in MODULES if name.startswith("analysis."))
    code = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names}];"
        "assert not {'torch', 'torchvision', 'wandb', 'wandb_workspaces'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

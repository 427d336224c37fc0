"""The notebook runs from start to end and shows what it promises; the committed file is clean."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbformat import NotebookNode

from finetune.errors import UserError
from finetune.models.classifier import build_network
from notebooks import execute as command
from notebooks.execute import NOTEBOOK, ROOT, execute, with_settings
from tests.support import offline
from tests.support.failing_disk import failing_disk

STRATEGIES = ["head", "partial", "full"]


@pytest.fixture(scope="module")
def notebook() -> NotebookNode:
    """Return the notebook as it is committed."""
    return nbformat.read(NOTEBOOK, as_version=4)


def sources(notebook: NotebookNode) -> dict[str, str]:
    """Return cell id -> source of each code cell, without IPython's magic."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return {cell.id: re.sub(r"^%.*$", "", cell.source, flags=re.MULTILINE) for cell in code}


def texts(notebook: NotebookNode, kind: str = "text/markdown") -> dict[str, str]:
    """Return cell id -> what it shows of a MIME type."""
    return {
        cell.id: "\n".join(output.data[kind] for output in cell.outputs if kind in output.get("data", {}))
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_nothing_but_the_source_is_committed(notebook: NotebookNode) -> None:
    """No outputs, no counts, no metadata of an editor, no path of a machine; a valid notebook with an id a cell."""
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z-]+", name) for name in ids), "an editor gave new ids"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
    assert not re.search(r"/(home|Users|root|work|tmp)/", NOTEBOOK.read_text())
    assert NOTEBOOK.read_text() == nbformat.writes(notebook) + "\n"


def test_the_first_cell_says_what_the_notebook_does(notebook: NotebookNode) -> None:
    """The question, and what it needs, takes and writes; headings follow in their order."""
    first, second = notebook.cells[:2]
    assert (first.cell_type, second.cell_type) == ("markdown", "code")
    assert first.source.startswith("# Which fine-tuning recipe")
    for text in ("no account", "minutes", "`runs/trials/`", "`reports/trials/`", "`make notebook`", "VS Code"):
        assert text in first.source
    headings = re.findall(r"^## (.+)$", "\n".join(cell.source for cell in notebook.cells), flags=re.MULTILINE)
    assert headings == [
        "Settings", "The data", "What a strategy freezes", "One run by hand", "The sweep", "The tables", "The figures",
        "The answer", "The winner on new images", "Take it with you", "Where to go next",
    ]  # fmt: skip


def test_cells_are_short_call_the_packages_and_find_what_they_import(notebook: NotebookNode) -> None:
    """At most 15 lines, no functions, classes or loops of their own, and every import resolves."""
    for name, source in sources(notebook).items():
        assert len(source.strip().splitlines()) <= 15, name
        tree = ast.parse(source)
        own = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.For | ast.While
        assert not any(isinstance(node, own) for node in ast.walk(tree)), name
        for node in ast.walk(tree):
            for module, names in _imports(node):
                found = importlib.import_module(module)
                for wanted in names:
                    assert hasattr(found, wanted) or importlib.import_module(f"{module}.{wanted}"), name


def _imports(node: ast.AST) -> list[tuple[str, list[str]]]:
    """Return (module, names) of an import."""
    if isinstance(node, ast.Import):
        return [(alias.name, []) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(str(node.module), [alias.name for alias in node.names])]
    return []


def test_commands_in_the_text_exist(notebook: NotebookNode) -> None:
    """The sweep files, modules and make targets that the text names are there."""
    text = "\n".join(cell.source for cell in notebook.cells)
    for path in re.findall(r"sweeps/\w+\.yaml", text):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module) is not None, module
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`make (\w+)", text)) <= set(targets)


def test_a_setting_replaces_one_of_the_cell_and_no_other(notebook: NotebookNode) -> None:
    """Right after it, in the copy only; the message about an unknown name suggests the nearest."""
    changed = with_settings(notebook, ["AGENTS=1", "NAME=mine"])
    at = next(index for index, cell in enumerate(changed.cells) if cell.id == "settings")
    assert changed.cells[at + 1].source == "AGENTS = 1\nNAME = 'mine'"
    assert len(changed.cells) == len(notebook.cells) + 1
    with pytest.raises(UserError, match=r"AGENT: no such setting. Did you mean 'AGENTS'\? Known: NAME, SWEEP, FIXED"):
        with_settings(notebook, ["AGENT=1"])


@pytest.mark.parametrize(
    ("word", "message"),
    [("AGENTS", "'AGENTS' has no '='"), ("TRIED=[1", "not YAML"), ("EPOCHS=3", "EPOCHS: no such setting")],
)
def test_a_bad_setting_is_reported_at_once(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2, before a kernel is started."""
    assert command.main([word]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the repository by links, so that new files are noticed; nothing of it is on the path."""
    copy = tmp_path / "repo"
    (copy / "notebooks").mkdir(parents=True)
    for name in ("agent.py", "finetune", "analysis", "sweeps"):
        (copy / name).symlink_to(ROOT / name)
    monkeypatch.setenv("PYTHONPATH", offline.SITE)
    return copy


def small_settings(folder: Path, pictures: Path) -> list[str]:
    """Return settings with which it takes seconds: three colours, tiny images, random weights."""
    torch.manual_seed(0)
    torch.save(build_network("squeezenet1_1", 32).state_dict(), folder / "weights.pth")
    fixed = {"data": str(pictures), "backbone": "squeezenet1_1", "weights": str(folder / "weights.pth"), "image_px": 32}
    settings = {
        "NAME": "small",
        "FIXED": {**fixed, "epochs": 2, "batch_size": 8},
        "TRIED": {"strategy": STRATEGIES, "lr": [0.003], "seed": [0, 1]},
        "NEW_PICTURES": 1,
    }
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def streams(notebook: NotebookNode) -> dict[str, str]:
    """Return name (stdout, stderr) -> all its output, without colours."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = {"stdout": "", "stderr": ""}
    for output in outputs:
        if output.output_type == "stream":
            printed[output.name] += re.sub(r"\x1b\[[\d;]*m", "", output.text)
    return printed


@pytest.mark.slow
def test_it_runs_from_start_to_end(notebook: NotebookNode, pictures: Path, repo: Path) -> None:
    """From its own folder: tables, figures, the answer; it writes only runs and reports, and shows no bars."""
    one = pictures / "train" / "blue" / "000.png"
    for number in range(200):  # so many that a terminal would get a bar
        shutil.copy(one, one.with_name(f"copy-{number}.png"))
    before = {path.name for path in repo.iterdir()}
    done = with_settings(notebook, small_settings(repo.parent, pictures))
    progress: list[str] = []
    advance = lambda at, total, heading: progress.append(f"{at}/{total} {heading}")  # noqa: E731
    assert execute(done, repo / "notebooks", advance) == (0, "")

    assert len(progress) == len(done.cells)
    assert progress[-1] == f"{len(done.cells) - 1}/{len(done.cells)} Where to go next"
    shown, images = texts(done), texts(done, "image/png")
    for name in ("compare", "costs"):
        assert [line.split("|")[1].strip() for line in shown[name].splitlines()[2:]] == STRATEGIES
    assert len(shown["pairs"].splitlines()) == 2 + 3
    assert "last third tuned (partial)" in shown["claims"]
    assert re.match(r"\*\*No verdict yet: (head|partial|full) is ahead with [\d.]+% on test", shown["answer-said"])
    assert re.match(r"\*\*[\d.]+%\*\* of 10 new images correct \([\d.]+–[\d.]+%\)", shown["promise"])
    looked_at = {"pictures", "augmented", "schedule", "history-plot", "grid", "unsure"}
    compared = {"accuracy", "curves", "rates", "time"}
    assert {name for name, image in images.items() if len(image) > 3000} == looked_at | compared
    assert "100%" in texts(done, "text/html")["share"]
    printed = streams(done)
    assert printed["stderr"] == ""
    assert "\x1b" not in printed["stdout"]
    assert "done: 6 finished, 0 failed, 0 left" in printed["stdout"]
    assert {path.name for path in repo.iterdir()} == before | {"runs", "reports"}
    assert len(list((repo / "runs" / "small-by-hand").glob("gradual-*/summary.json"))) == 1
    assert {path.name for path in (repo / "runs").iterdir()} == {"small", "small-by-hand"}
    assert len(list((repo / "runs" / "small").glob("*/summary.json"))) == len(STRATEGIES) * 2
    assert (repo / "reports" / "small" / "report.html").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_kernel_and_is_the_exit_code(number: int, code: int, tmp_path: Path) -> None:
    """In a cell that never ends; the cells before it have their outputs, and no process is left."""
    cells = ["import os; print(os.getpid(), flush=True); open('begun', 'w').close()", "import time; time.sleep(600)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, tmp_path / "short.ipynb")
    program = (
        "import sys, pathlib, notebooks.execute as command\n"
        "command.ROOT = pathlib.Path.cwd()\n"
        "command.NOTEBOOK = pathlib.Path('short.ipynb')\n"
        "command.with_settings = lambda notebook, settings: notebook\n"
        "sys.exit(command.main([]))\n"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # so that the second cell has begun
    process.send_signal(number)
    message = process.communicate(timeout=120)[1].decode()
    assert process.returncode == code, message
    assert "stopped; finished runs are kept" in message
    assert "Traceback" not in message
    done = nbformat.read(tmp_path / "reports" / "trials" / "short.ipynb", as_version=4)
    kernel = int(done.cells[0].outputs[0].text)
    while psutil.pid_exists(kernel):
        assert time.monotonic() < deadline, "the kernel goes on"
        time.sleep(0.05)


def test_a_full_disk_is_reported_with_the_name_of_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and the notebook of the run before stays."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "execute", lambda *_: (0, ""))
    with failing_disk(tmp_path / "reports") as disk:
        assert command.main([]) == 0
        out = tmp_path / "reports/trials/trials.ipynb"
        before = out.read_bytes()
        disk.arm(None)
        assert command.main([]) == 0
        writes = list(disk.writes)
        for number in range(writes.index(f"rename {out.name}") + 1):
            disk.arm(number)
            assert command.main([]) == 1, disk.hit
            message = capsys.readouterr().err
            assert str(tmp_path / "reports") in message, disk.hit
            assert "Traceback" not in message
            assert out.read_bytes() == before

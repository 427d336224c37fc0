"""Run the notebook without a browser: `python -m notebooks.execute [NAME=VALUE ...]`.

The copy with its outputs goes to reports/<NAME>/trials.ipynb. NAME=VALUE replaces a setting of the cell that is tagged
`parameters`, such as AGENTS=1; the value is YAML.
"""

import argparse
import asyncio
import copy
import signal
import sys
from pathlib import Path
from typing import Any

import nbformat
import yaml
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from finetune.errors import EXIT_FAILED, UserError, nearest
from finetune.system.atomic import write_atomic
from finetune.system.documents import load_yaml
from finetune.system.output import command
from finetune.system.progress_bar import Advance, progress_bar

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "trials.ipynb"
RESUME = "finished runs are kept, and the same command resumes the others"


class _ThisPython(AsyncKernelManager):
    """Starts this Python as the kernel, whatever kernels are installed."""

    kernel_spec = KernelSpec(**get_kernel_dict())


def with_settings(notebook: NotebookNode, words: list[str]) -> NotebookNode:
    """Return a copy with a cell of these settings, NAME=VALUE, after the cell that is tagged `parameters`.

    Raises:
        UserError: a word is no setting, or the tagged cell has none of this name.
    """
    changed = copy.deepcopy(notebook)
    position = next(index for index, cell in enumerate(changed.cells) if "parameters" in cell.metadata.get("tags", []))
    names = [line.split(" =")[0] for line in changed.cells[position].source.splitlines() if " = " in line]
    lines = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} has no '=': write NAME=VALUE, such as AGENTS=1")
        if name not in names:
            raise UserError(f"{name}: no such setting.{nearest(name, names)} Known: {', '.join(names)}")
        try:
            lines.append(f"{name} = {load_yaml(text)!r}")
        except yaml.YAMLError as error:
            raise UserError(f"{name}: the value is not YAML: {error}") from None
    if lines:
        changed.cells.insert(position + 1, nbformat.v4.new_code_cell("\n".join(lines), id="settings-given"))
    return changed


def execute(notebook: NotebookNode, folder: Path, advance: Advance) -> tuple[int, str]:
    """Run all cells in a kernel that starts in `folder`, and put their outputs into `notebook`.

    SIGINT and SIGTERM interrupt the cell, so that its runs can save; those of nbclient end the kernel at once.

    Returns:
        The exit code, and what went wrong; then only the cells before have all their outputs.
    """
    signals: list[int] = []
    interrupts = []  # the event loop keeps no reference to its tasks

    def on_signal(number: int) -> None:
        signals.append(number)
        interrupts.append(asyncio.ensure_future(client.km.interrupt_kernel()))

    def on_start(**_: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)

    def on_cell(cell: NotebookNode, cell_index: int) -> None:
        is_heading = cell.cell_type == "markdown" and cell.source.startswith("#")
        advance(cell_index, len(notebook.cells), cell.source.partition("\n")[0].lstrip("# ") if is_heading else None)
        if signals:
            raise DeadKernelError("a signal came between two cells")

    client: Any = NotebookClient(
        notebook, timeout=None, kernel_manager_class=_ThisPython, on_notebook_start=on_start, on_cell_start=on_cell,
        record_timing=False, resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    try:
        client.execute(transport_encryption="auto")  # without, the kernel warns that others here could listen in
    except (CellExecutionError, DeadKernelError) as error:
        if signals:
            return 128 + signals[0], f"stopped; {RESUME}"
        if isinstance(error, DeadKernelError):
            return EXIT_FAILED, f"the kernel died; {RESUME}"
        return EXIT_FAILED, f"a cell failed, {error.ename}: {error.evalue}"
    return 0, ""


@command
def main(arguments: list[str]) -> int:
    """Run the notebook and return the exit code."""
    parser = argparse.ArgumentParser("python -m notebooks.execute", description="Run notebooks/trials.ipynb.")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="replaces a setting of the notebook")
    words = parser.parse_args(arguments).settings
    notebook = with_settings(nbformat.read(NOTEBOOK, as_version=4), words)
    name = next((word.removeprefix("NAME=") for word in words if word.startswith("NAME=")), "trials")
    out = ROOT / "reports" / name / NOTEBOOK.name
    with progress_bar("starting") as advance:
        code, problem = execute(notebook, ROOT, advance)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, nbformat.writes(notebook))
    if problem:
        print(problem, file=sys.stderr)
    print(f"see {out.relative_to(ROOT)}", file=sys.stderr if problem else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

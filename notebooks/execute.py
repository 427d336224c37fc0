"""Run the notebook from start to end without a browser: `python -m notebooks.execute [NAME=VALUE ...]`.

The copy with its outputs goes to reports/<name>/trials.ipynb. NAME=VALUE replaces a setting of the cell that is tagged
`parameters`, such as AGENTS=1; the value is YAML.
"""

import argparse
import asyncio
import contextlib
import copy
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, UserError, nearest
from finetune.system import documents
from finetune.system.atomic import write_atomic
from finetune.system.output import SafeConsole, command, fail

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "trials.ipynb"
PARAMETERS = "parameters"  # tag of the cell with the settings, as papermill has it

# Called before each cell with its number, from 0 on, how many there are, and the heading that it stands under.
OnCell = Callable[[int, int, str], None]


class Kernels(AsyncKernelManager):
    """Starts this very Python as the kernel, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """What is started."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        about = {"supported_encryption": "curve"}  # or it warns of what others on this machine could overhear
        return KernelSpec(argv=argv, display_name="Python", language="python", metadata=about)


class Client(NotebookClient):
    """Interrupts the cell at SIGINT and SIGTERM, and what it has started; a second one ends the kernel.

    nbclient itself ends the kernel at once, in the middle of whatever it does.

    Attributes:
        received: the first signal's number; 0 before.
    """

    received = 0

    @contextlib.asynccontextmanager
    async def async_setup_kernel(self, **options: Any) -> AsyncGenerator[None, None]:
        """Have a kernel within the block."""
        loop, running = asyncio.get_running_loop(), asyncio.current_task()
        assert running is not None
        sent = set()

        def on_signal(number: int) -> None:
            if self.received:
                running.cancel()
            else:
                self.received = number
                assert self.km is not None
                sent.add(loop.create_task(ensure_async(self.km.interrupt_kernel())))

        async with super().async_setup_kernel(**options):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, on_signal, number)  # in place of nbclient's
            yield


class Stopped(Exception):
    """A signal ended the notebook; its number is the argument."""


def with_settings(notebook: nbformat.NotebookNode, settings: Mapping[str, Any]) -> nbformat.NotebookNode:
    """Return a copy in which these settings stand in a cell of their own after the cell of parameters.

    Raises:
        UserError: a setting is none of the cell's.
    """
    changed = copy.deepcopy(notebook)
    tagged = [at for at, cell in enumerate(changed.cells) if PARAMETERS in cell.metadata.get("tags", [])]
    known = [line.split(" =")[0] for line in changed.cells[tagged[0]].source.splitlines() if " = " in line]
    for name in settings:
        if name not in known:
            raise UserError(f"{name}: no such setting.{nearest(name, known)} Known: {', '.join(known)}")
    if settings:
        source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
        changed.cells.insert(tagged[0] + 1, nbformat.v4.new_code_cell(source, id="settings-given"))
    return changed


def execute(notebook: nbformat.NotebookNode, folder: Path, on_cell: OnCell = lambda *_: None) -> None:
    """Run all cells in a kernel of this Python, and put their outputs into `notebook`.

    Args:
        folder: where the kernel starts.

    Raises:
        CellExecutionError: a cell failed; what ran before it has its outputs.
        Stopped: by SIGINT or SIGTERM; likewise.
    """
    headings = _headings(notebook)

    def tell(cell: nbformat.NotebookNode, cell_index: int) -> None:  # noqa: ARG001  (called by these names)
        on_cell(cell_index, len(notebook.cells), headings[cell_index])

    client = Client(
        notebook, timeout=None, kernel_manager_class=Kernels, on_cell_start=tell, record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    try:
        client.execute(transport_encryption="auto" if zmq.has("curve") else "disabled")
    except (CellExecutionError, DeadKernelError, asyncio.CancelledError):
        if client.received:
            raise Stopped(client.received) from None
        raise


def _headings(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the heading that each cell stands under."""
    found, last = [], ""
    for cell in notebook.cells:
        lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
        last = next((line.lstrip("# ") for line in lines if line.startswith("#")), last)
        found.append(last)
    return found


def _parse(words: list[str]) -> dict[str, Any]:
    """Return the settings that the command line gives."""
    pairs = [word.partition("=") for word in words]
    lacking = [name for name, equals, _ in pairs if not equals]
    if lacking:
        raise UserError(f"{lacking[0]!r} has no '=': write NAME=VALUE, such as AGENTS=1")
    try:
        return {name: documents.load_yaml(text) for name, _, text in pairs}
    except yaml.YAMLError as error:
        raise UserError(f"a value is not YAML: {error}") from None


@command
def main(arguments: list[str]) -> int:
    """Run the notebook and return the exit code (see finetune/errors.py)."""
    parser = argparse.ArgumentParser("python -m notebooks.execute", description="Run notebooks/trials.ipynb.")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="replaces a setting of the notebook")
    console = SafeConsole(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        settings = _parse(parser.parse_args(arguments).settings)
        notebook = with_settings(nbformat.read(NOTEBOOK, as_version=4), settings)
    except UserError as error:
        return fail(error, EXIT_BAD_INPUT)
    out = ROOT / "reports" / str(settings.get("NAME", "trials")) / NOTEBOOK.name
    failed, code = "", EXIT_FAILED
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("starting", total=None)
        try:
            execute(
                notebook, ROOT,
                lambda at, total, heading: bars.update(task, completed=at, total=total, description=heading),
            )  # fmt: skip
        except CellExecutionError as error:
            failed = f"a cell failed, {error.ename}: {error.evalue}"
        except Stopped as error:
            failed, code = "stopped; runs that are finished are kept, and the same command goes on", 128 + error.args[0]
        except DeadKernelError:
            failed = "the kernel died; runs that are finished are kept, and the same command goes on"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, nbformat.writes(notebook))
    if failed:
        print(f"{failed}\nsee {out.relative_to(ROOT)}", file=sys.stderr)
        return code
    print(f"see {out.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""W&B's client is imported in one room alone, and the private parts of it that are used are still there.

An update that renames one should fail here, not in a run. There is no public call for these: whether the server wants
a run to stop; all sweeps of a project in few requests; what a mirror need not import.
"""

import ast
import inspect

import wandb
from wandb.apis.paginator import Paginator
from wandb.apis.public import Api, Sweep
from wandb.apis.public.api import ServiceApi
from wandb.apis.public.sweeps import Sweeps

from finetune.tracking import wandb_run
from tests import ROOT


def test_only_tracking_imports_wandb() -> None:
    """Everything else asks this room."""
    importers = set()
    for file in (ROOT / "finetune").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "wandb" for name in names):
                importers.add(file.parent.name)
    assert importers == {"tracking"}


def test_sweeps_come_a_page_at_a_time() -> None:
    """As sweep_server.py reads them; a sweep has its attributes as the server sent them."""
    assert issubclass(Sweeps, Paginator)
    assert callable(Sweeps._update_response)
    for name in ("more", "cursor"):
        assert isinstance(inspect.getattr_static(Sweeps, name), property)
    assert "self._attrs" in inspect.getsource(Sweep)


def test_a_query_of_our_own_is_sent_by_its_text_and_variables() -> None:
    """As wandb_run.py asks whether a run is to stop."""
    assert "self._service_api: ServiceApi" in inspect.getsource(Api.__init__)
    parameters = inspect.signature(ServiceApi.execute_graphql).parameters
    assert list(parameters)[:3] == ["self", "query", "variables"]


def test_a_mirror_imports_neither_pandas_nor_launch() -> None:
    """wandb_run.py takes from the client what would import them; a data frame is still known by its name."""
    assert "if pd_available:" in inspect.getsource(wandb.util.is_pandas_data_frame)
    assert not wandb_run.wandb.util.pd_available
    assert "self._detect_and_apply_job_inputs()" in inspect.getsource(wandb.Run._on_ready)
    assert "launch" not in inspect.getsource(wandb.Run._detect_and_apply_job_inputs)

"""The command that writes the W&B report: up to the server, and against a backend on the loopback interface."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis import wandb_report
from analysis.report.wandb.blocks import library
from analysis.sources.sweep import Sweep
from analysis.sources.wandb import client
from analysis.tables.analysis import Analysis
from analysis.wandb_report import main
from finetune.rundir import keys
from finetune.system import documents
from finetune.tracking.sweep_address import SweepAddress
from tests.analysis.conftest import leave_figures_blank
from tests.analysis.report.wandb.reported_sweep import SWEEP, make_sweep
from tests.support.fabricate import fabricate_run
from tests.support.failing_disk import failing_disk
from tests.support.wandb_server.server import Server, serve

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # raised by the import of wandb-workspaces


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Work in a folder with that sweep and a stand-in for the server; return what it gets."""
    monkeypatch.chdir(tmp_path)
    leave_figures_blank(monkeypatch)
    make_sweep(tmp_path / "runs/demo", tmp_path / "images")
    sent: list[Any] = []
    monkeypatch.setattr(wandb_report, "folder_address", lambda _: SweepAddress("tester", "trials", "abcd1234"))
    monkeypatch.setattr(wandb_report, "connect", lambda: SimpleNamespace(url="https://w", app_url="https://w"))
    monkeypatch.setattr(wandb_report, "open_media_run", lambda *_: contextlib.nullcontext(None))
    monkeypatch.setattr(wandb_report, "log_media", lambda _, out, strategies: sent.append((out, strategies)))
    monkeypatch.setattr(wandb_report, "save_report", lambda *_: "https://w/demo")
    return sent


def test_a_sweep_is_read_and_analysed_before_anything_is_sent(sent: list[Any]) -> None:
    """The way of `make report` up to the server; the tests below have one."""
    assert wandb_report.write_report("runs/demo") == "https://w/demo"
    ((out, strategies),) = sent
    assert strategies["strategy"].tolist() == ["head", "full"]
    assert (out / "report.html").is_file()


def test_a_full_disk_ends_it_before_anything_is_sent(
    sent: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the name of a file and exit code 1, whichever write fails first; with room, the same command goes on."""
    with failing_disk(tmp_path / "reports") as disk:
        disk.arm(None)
        assert wandb_report.main(["runs/demo"]) == 0
        writes = len(disk.writes)
        assert writes > 20
        sent.clear()
        for number in (0, writes // 2, writes - 2):
            disk.arm(number)
            assert wandb_report.main(["runs/demo"]) == 1, disk.hit
            message = capsys.readouterr().err
            assert message.startswith("WriteError: reports/demo"), message
            assert message.count("\n") == 1
            assert sent == []
        disk.arm(None)
        assert wandb_report.main(["runs/demo"]) == 0
        assert len(sent) == 1


def test_a_sweep_that_is_not_on_the_server_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So is a server that is switched off; nothing is analysed first."""
    monkeypatch.chdir(tmp_path)
    run = fabricate_run(Path("runs/demo"), "head-1")
    assert main(["demo"]) == 2
    assert "runs/demo is not on W&B yet: make publish SWEEP=runs/demo" in capsys.readouterr().err
    documents.write_json(run.parent / keys.REMOTE, {"entity": "e", "project": "p", "sweep": "abcd1234"})
    assert main(["demo"]) == 2
    assert "WANDB_MODE=disabled" in capsys.readouterr().err
    assert main(["nowhere"]) == 2
    assert not Path("reports").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve a backend that this process is logged in to."""
    import wandb

    wandb.teardown()
    with serve() as served:
        monkeypatch.delenv("WANDB_MODE")
        for name, value in served.environment(tmp_path / "home").items():
            if name.startswith("WANDB") or name in ("HOME", "NETRC"):
                monkeypatch.setenv(name, value)
        yield served
        wandb.teardown()


def test_without_a_login_it_says_how_to_log_in(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And asks for nothing, on a terminal or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY")
    run = fabricate_run(Path("runs/demo"), "head-1")
    documents.write_json(run.parent / keys.REMOTE, {"entity": "e", "project": "p", "sweep": "abcd1234"})
    assert main(["demo"]) == 2
    assert "wandb login" in capsys.readouterr().err
    assert not server.counts


def test_a_server_that_is_away_does_not_take_long_to_be_missed(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The long time for an answer is for a server that has given one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "SHORT_SECONDS", 1)
    run = fabricate_run(Path("runs/demo"), "head-1")
    documents.write_json(run.parent / keys.REMOTE, {"entity": "e", "project": "p", "sweep": "abcd1234"})
    server.go_down()
    began = time.monotonic()
    assert main(["demo"]) == 2
    assert time.monotonic() - began < 20
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Read the `app_url` setting")  # what wandb.sweep says of itself
@pytest.mark.usefixtures("blank_figures")
def test_a_report_is_written_once_and_updated(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From whatever directory and by whatever agent's environment it is called; readers' notes stay."""
    import wandb
    import yaml

    monkeypatch.chdir(tmp_path)
    folder = Path("runs/demo")
    make_sweep(folder, tmp_path / "images")
    sweep = wandb.sweep(yaml.safe_load(SWEEP), entity="tester", project="trials")
    documents.write_json(folder / keys.REMOTE, {"entity": "tester", "project": "trials", "sweep": sweep, "url": "u"})
    monkeypatch.setenv("WANDB_SWEEP_ID", sweep)  # what W&B's agent sets for a run
    monkeypatch.setenv("WANDB_RUN_ID", "elsewhere")
    monkeypatch.setenv("WANDB_RUN_GROUP", "elsewhere")
    wandb.teardown()
    capsys.readouterr()
    build_report, built = wandb_report.build_report, {}

    def build_once(sweep: Sweep, out: Path, **options: Any) -> Analysis:
        if out not in built:
            built[out] = build_report(sweep, out, **options)
        return built[out]

    monkeypatch.setattr(wandb_report, "build_report", build_once)  # the files of a second report are equal

    def report(*arguments: str) -> str:
        assert main(["demo", *arguments]) == 0
        return capsys.readouterr().out.strip()

    url = report()
    (view,) = server.views()
    assert url == f"{server.url}/tester/trials/reports/Which-fine-tuning-recipe-demo--{view['id'].rstrip('=')}"
    assert (view["type"], view["displayName"], view["project"]) == ("runs", "Which fine-tuning recipe? demo", "trials")
    runsets = [
        runset
        for block in view["spec"]["blocks"]
        if block["type"] == "panel-grid"
        for runset in block["metadata"]["runSets"]
    ]
    filters = [{item["key"]["name"]: item["value"] for item in runset["filters"]["filters"]} for runset in runsets]
    assert filters[0] == {"sweep": sweep, "jobType": "train", "tags": ["head"]}
    assert {"name": [f"analysis-{sweep}"]} in filters
    assert runsets[0]["grouping"] == [{"section": "run", "name": "group"}]

    (run,) = server.runs("trials")
    assert (run.id, run.sweep, run.group, run.job_type) == (f"analysis-{sweep}", None, None, "analysis")
    logged = {"prediction_grid", "comparison", "figures/learning_curves", "figures/accuracy_by_strategy"}
    assert logged <= run.summary.keys()
    assert {"comparison.csv", "report.html", "report.json"} <= run.files.keys()
    assert [item.name for item in server.artifacts(run.id)] == [f"run-analysis-{sweep}-comparison:v0"]

    wr = library()
    seen = wr.Report.from_url(url)
    seen.title, seen.blocks = "My title", [*seen.blocks, wr.MarkdownBlock("seen on *another* set")]
    seen.save()
    report("--draft")
    assert report().endswith(url.rsplit("--")[-1])
    assert [(view["type"], view["displayName"]) for view in server.views()] == [
        ("runs", "My title"),
        ("runs/draft", "Which fine-tuning recipe? demo"),
    ]
    assert server.views()[0]["spec"]["blocks"][-2]["content"] == "seen on *another* set"
    assert len(server.views()[0]["spec"]["blocks"]) == len(view["spec"]["blocks"]) + 1
    steps = [row["_step"] for row in server.run(run.id).lines.values()]
    assert steps == [0, 1, 2]
    assert [run.id for run in server.runs("trials")] == [f"analysis-{sweep}"]
    assert server.errors == []
    assert sorted(path.name for path in Path().iterdir()) == ["home", "images", "reports", "runs"]
    assert os.environ["WANDB_SWEEP_ID"] == sweep


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_a_draft_becomes_the_report_and_a_deleted_report_is_made_anew(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that are not on the server are a caveat of the report."""
    monkeypatch.chdir(tmp_path)
    folder = fabricate_run(Path("runs/1a2b3c4d"), "head-1").parent
    documents.write_json(folder / keys.REMOTE, {"entity": "tester", "project": "trials", "sweep": "1a2b3c4d"})
    (folder / keys.SWEEP).write_text("name: by hand\nmethod: grid\n")
    assert main(["runs/1a2b3c4d", "--draft"]) == 0
    draft, message = capsys.readouterr()
    assert "1 of 1 finished runs are not on W&B yet" in message
    assert "(make publish SWEEP=runs/1a2b3c4d sends them): head-1." in json.dumps(server.views()[0]["spec"])

    documents.write_json(folder / "head-1/wandb-head-1.json", {"path": "tester/trials/head-1", "complete": False})
    assert main(["runs/1a2b3c4d"]) == 0
    assert capsys.readouterr() == (draft, "")
    assert [(view["type"], view["displayName"]) for view in server.views()] == [
        ("runs", "Which fine-tuning recipe? by hand")
    ]

    assert main(["runs/1a2b3c4d", "--draft"]) == 0  # another one: what is published stays published
    assert capsys.readouterr().out != draft
    assert [view["type"] for view in server.views()] == ["runs", "runs/draft"]

    library().Report.from_url(draft.strip()).delete()
    assert main(["runs/1a2b3c4d", "--title", "Again"]) == 0
    again, message = capsys.readouterr()
    assert "was deleted" in message
    view = server.views()[-1]
    assert again.strip() == f"{server.url}/tester/trials/reports/Again--{view['id'].rstrip('=')}" != draft.strip()
    assert server.errors == []

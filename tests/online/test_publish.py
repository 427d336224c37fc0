"""What is run without the W&B server and sent later; and what is never sent, told or kept: secrets."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from finetune.rundir import keys
from finetune.system import documents
from tests.online.machine import PROGRAM, Machine, environment_without_login, sent
from tests.support.agent_in_process import InProcess
from tests.support.scenarios import outcome, outcomes, scenario
from tests.support.wandb_server.server import API_KEY, Server, serve

__all__ = ["outcome", "outcomes"]

STRATEGIES = """\
program: agent.py
project: finetune-sweeps
method: grid
metric: {name: best/val_accuracy, goal: maximize}
parameters:
  data: {value: demo}
  seed: {values: [0, 1]}
  strategy: {value: head}
  epochs: {value: 2}
"""
# Draws nothing: bytes of images would show no secret, and take most of the time.
ANALYSE = """\
import pytest, sys
from analysis.__main__ import main
from tests.analysis.conftest import leave_figures_blank
leave_figures_blank(pytest.MonkeyPatch())
sys.exit(main(sys.argv[1:]))
"""


def write_strategies(folder: Path) -> None:
    """Write the sweep file that `make agents` takes by itself."""
    (folder / "sweeps").mkdir(exist_ok=True)
    (folder / "sweeps/strategies.yaml").write_text(STRATEGIES)


@scenario
def offline(server: Server, folder: Path) -> Any:
    """Without a login, `make agents` runs the sweep file; publish sends it later."""
    machine = Machine(server, folder)
    write_strategies(folder)
    no_login = machine.run("python", PROGRAM, **environment_without_login())
    (folder / "runs/strategies/plan.json").write_text('{"runs": ["not-there"]}')
    nothing = dict(server.counts)
    published = machine.run("python", "-m", "finetune.publish", "runs/strategies")
    there = [(run.id, run.state, len(run.history), run.sweep) for run in server.runs()]
    before = server.counts
    again = machine.run("python", "-m", "finetune.publish", "runs/strategies")
    asked = server.counts - before
    shutil.copytree(folder / "runs/strategies", folder / "runs/copy")
    for file in [*folder.glob("runs/copy/wandb.json"), *folder.glob("runs/copy/*/wandb-*.json")]:
        file.unlink()
    strange, torn = sorted(folder.glob("runs/copy/*/predictions.csv"))
    strange.write_text(strange.read_text().replace(",cat,cat,", ",fish,cat,"))
    torn.unlink()
    copied = machine.run("python", "-m", "finetune.publish", "runs/copy")
    after = [(run.id, run.state, len(run.history), run.sweep) for run in server.runs()]
    (lost,) = (sweep for sweep in server.sweeps() if sweep.config["name"] == "copy")
    server.delete_sweep(lost.id)
    deleted = machine.run("python", "-m", "finetune.publish", "runs/copy")
    return server, machine, (copied, after, lost.id, deleted), no_login, nothing, published, there, (*again, asked)


@pytest.mark.scenario("offline")
def test_without_w_and_b_a_sweep_runs_offline_and_it_is_said(outcome: Any) -> None:
    """No request is made."""
    _, machine, _, (code, output), nothing, *_ = outcome
    assert code == 0, output
    assert "not logged in to W&B (wandb login): running sweeps/strategies.yaml offline" in " ".join(output.split())
    assert nothing == {}
    assert len(machine.runs("strategies")) == 2


def test_switched_off_w_and_b_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep file runs offline; a sweep that is on the server can't be run, which is said."""
    write_strategies(tmp_path)
    with serve() as server:
        for name, value in {**server.environment(tmp_path / "home"), "WANDB_MODE": "offline"}.items():
            monkeypatch.setenv(name, value)
        code, output = InProcess(tmp_path).run()
        assert code == 0, output
        assert "WANDB_MODE is offline: running sweeps/strategies.yaml offline" in " ".join(output.split())
        assert len(list(tmp_path.glob("runs/strategies/*/summary.json"))) == 2
        code, output = InProcess(tmp_path).run("abcd1234")
        assert code == 2
        assert "abcd1234 is a sweep on a W&B server, but WANDB_MODE is offline" in output
        assert server.counts == {}


@pytest.mark.scenario("offline")
def test_publish_replays_an_offline_sweep_and_a_second_time_changes_nothing(outcome: Any) -> None:
    """The sweep, its runs with their own ids, history, summary, files; finished on the server as here."""
    server, machine, *_, (code, output), there, (again, more, asked) = outcome
    assert code == 0, output
    assert {id for id, *_ in there} == {run.name for run in machine.runs("strategies")}
    assert {state for _, state, *_ in there} == {"finished"}
    (sweep,) = server.sweeps()
    assert {sweep_id for *_, sweep_id in there} == {sweep.id}
    assert sweep.state == "FINISHED"
    assert again == 0, more
    assert "0 runs to send" in more
    assert not asked["UpsertBucket"]
    assert not asked["file_stream"]
    assert "run/history.jsonl" in server.runs()[0].files


@pytest.mark.scenario("offline")
def test_a_run_of_another_sweep_is_not_touched(outcome: Any) -> None:
    """The same run in a second sweep of a project gets an id that says which; that a sweep was deleted is told."""
    _, _, ((code, output), after, second, (last, more)), *_, there, _ = outcome
    assert code == 0, output
    assert after[: len(there)] == there
    assert {id for id, *_ in after[len(there) :]} == {f"{id}-{second}" for id, *_ in there}
    assert {(state, sweep) for _, state, _, sweep in after[len(there) :]} == {("finished", second)}
    assert last == 2
    assert "delete runs/copy/wandb.json" in more


PASSWORD, HUB, REMOTE_TOKEN = "sw0rdfish-of-the-server", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01", "ghp_" + "AbCdEfGhIj" * 4


@scenario
def secrets(server: Server, folder: Path) -> Any:
    """A run that finishes and one that fails, both full of secrets, and the report on them."""
    address = server.url.replace("://", f"://me:{PASSWORD}@")
    told = f", asked https://{REMOTE_TOKEN}@host/x?token={HUB} for {API_KEY}, {PASSWORD}"
    machine = Machine(server, folder, {"WANDB_BASE_URL": address, "HF_TOKEN": HUB, "FAKE_SAYS": told, "FAKE_FAIL": "1"})
    for words in (["init", "-q"], ["remote", "add", "origin", f"https://me:{REMOTE_TOKEN}@host/x"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    heard = server.listen()
    sweep = machine.sweep({"seed": [0, 1], "strategy": "head", "epochs": 1})
    agent = machine.agent()
    analysis = machine.run("python", "-c", ANALYSE, f"tester/finetune-sweeps/{sweep}")
    return server, machine, sweep, agent, analysis, b"\n".join(heard)


@pytest.mark.scenario("secrets")
def test_no_secret_is_kept_told_or_sent(outcome: Any) -> None:
    """Keys, tokens and passwords are in no file, W&B's own included, in no output, and in nothing that is sent."""
    server, machine, sweep, (code, output), analysis, heard = outcome
    assert code == 1, output
    assert analysis[0] == 0, analysis[1]
    assert sorted(run.state for run in server.runs(sweep=sweep)) == ["failed", "finished"]
    files = [path for path in machine.folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    places = {str(path): path.read_bytes() for path in files}
    places |= {"agent": output.encode(), "analysis": analysis[1].encode(), "server": heard}
    for name in (f"{sweep}/agent-1.txt", f"{sweep}/wandb.json", "/log.txt", "/state.json", "report.html"):
        assert any(place.endswith(name) for place in places), name
    assert b"***" in heard  # what was taken out would have been there
    secrets = [text.encode() for text in (API_KEY, PASSWORD, HUB, REMOTE_TOKEN)]
    assert {(place, text) for place, content in places.items() for text in secrets if text in content} == set()


@pytest.mark.scenario("secrets")
def test_addresses_of_pages_are_kept_without_the_login(outcome: Any) -> None:
    """So that they can still be opened, by whoever reads the report."""
    server, machine, sweep, *_ = outcome
    folder = machine.folder / "runs" / sweep
    page = f"{server.url}/tester/finetune-sweeps"
    assert documents.read_json(folder / keys.REMOTE)["url"] == f"{page}/sweeps/{sweep}"
    assert {note["url"] for run in machine.runs(sweep) for note in sent(run)} == {
        f"{page}/runs/{run.id}" for run in server.runs(sweep=sweep)
    }

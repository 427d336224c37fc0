"""Sweeps on a W&B server, with the real client and its real agents as processes, against the loopback server."""

from pathlib import Path
from typing import Any

import pytest

from finetune.rundir import files, keys
from finetune.system import documents
from tests.online.machine import AGENT, Machine, peers, sent, starts
from tests.support.images import write_folder
from tests.support.scenarios import outcome, outcomes, scenario
from tests.support.wandb_server.cli import wandb_command
from tests.support.wandb_server.server import Server

__all__ = ["outcome", "outcomes"]

MAX_REQUESTS = 30  # fewer than this, says docs/wandb.md
EPOCHS = 200  # of 0.4 s: time enough for the server to hear of a laggard and stop it, however busy the machine is


@scenario
def two_agents(server: Server, folder: Path) -> Any:
    """A grid with two points that are one run, by `make agents` without a word about which sweep, on two GPUs."""
    machine = Machine(server, folder, {"CUDA_VISIBLE_DEVICES": "0,3"})
    machine.sweep({"strategy": ["head", "gradual"], "unfreeze": {"value": [[0, 0]]}, "epochs": 3})
    sweep = machine.sweep({"seed": [0, 1, 2], "strategy": "head", "epochs": 3}, by_command=True)
    before = server.counts.copy()
    done = machine.run("python", AGENT)
    asked = server.counts - before
    left = machine.processes()
    elsewhere = Machine(server, folder / "elsewhere")
    other = server.sweeps()[0].id
    by_hand = elsewhere.run(*wandb_command("agent", f"tester/finetune-sweeps/{other}"))
    over = [machine.agent(), machine.agent(sweep)]
    return server, machine, sweep, done, left, asked, over, elsewhere, other, by_hand


@pytest.mark.scenario("two_agents")
def test_agents_take_the_newest_unfinished_sweep_and_end_with_it(outcome: Any) -> None:
    """Each run once, side by side, with exit code 0; nothing is left behind."""
    server, machine, sweep, (code, output), left, *_ = outcome
    assert code == 0, output
    assert server.sweep(sweep).state == "FINISHED"
    runs = server.runs(sweep=sweep)
    assert [run.state for run in runs] == ["finished"] * 3
    assert [starts(run) for run in machine.runs(sweep)] == [1, 1, 1]
    assert "3 finished" in output
    assert {(run / "gpu.txt").read_text() for run in machine.runs(sweep)} == {"0", "3"}  # an agent for each GPU
    assert not left
    assert not (machine.folder / "wandb").exists()
    assert all(note["sent"] for run in machine.runs(sweep) for note in sent(run))


@pytest.mark.scenario("two_agents")
def test_a_run_tells_the_server_all_there_is(outcome: Any) -> None:
    """Config, history by epoch with the best so far, group without the seed, tags, tables, files, console."""
    server, machine, sweep, *_ = outcome
    runs = sorted(server.runs(sweep=sweep), key=lambda run: run.config["seed"])
    for seed, run in enumerate(runs):
        directory = machine.folder / "runs" / sweep / run.display_name
        rows, _ = files.read_history(directory)
        epochs = [row for row in run.history if "epoch" in row]
        assert [{key: row[key] for key in rows[0]} for row in epochs] == rows
        assert [row["best/val_accuracy"] for row in epochs] == [row["val/accuracy"] for row in rows]
        assert [row["_step"] for row in epochs] == [1, 2, 3]
        summary = documents.read_json(directory / keys.SUMMARY)
        known = {key: value for key, value in summary.items() if value is not None}  # W&B's client drops the others
        assert {key: run.summary[key] for key in known} == known
        assert run.config["provenance"]["git_commit"] == "c0ffee"
        assert run.config["provenance"]["run_id"] == run.display_name == directory.name
        assert run.config["weight_decay"] == 0.01
        assert run.config["seed"] == seed
        assert (run.job_type, run.tags[0]) == ("train", "head")
        assert run.output[:2] == [f"attempt 1 of seed {seed}", "epoch 1"]
        for name in ("config.yaml", "history.jsonl", "summary.json", "predictions.csv", "thumbnails.zip", "splits.csv"):
            assert run.files[f"run/{name}"] == (directory / name).read_bytes(), name
        assert not any(name.endswith(".pt") for name in run.files)
    assert len({run.group for run in runs}) == 1


@pytest.mark.scenario("two_agents")
def test_a_run_sends_two_tables_the_pictures_among_them(outcome: Any) -> None:
    """The confusion matrix, and the prediction grid's images with what was said of them."""
    server, _, sweep, *_ = outcome
    run = server.runs(sweep=sweep)[0]
    files = {name: content for artifact in server.artifacts(run.id) for name, content in artifact.files.items()}
    assert {"test/predictions.table.json", "test/confusion_table.table.json"} <= files.keys()
    assert len([name for name in files if name.endswith(".jpg")]) == 1  # both images of the stand-in are the same
    assert b'"cat", "dog"' in files["test/confusion_table.table.json"].replace(b'","', b'", "')


@pytest.mark.scenario("two_agents")
def test_a_run_makes_few_requests(outcome: Any) -> None:
    """What docs/wandb.md says of a run, files and images left out, which go to a storage without a limit."""
    server, _, sweep, _, _, asked, *_ = outcome
    of_agents = ("Heartbeat", "CreateAgent", "SweepWithRuns", "GetSweeps", "GetSweep", "Runs", "file_stream")
    of_runs = {name: count for name, count in asked.items() if name not in (*of_agents, "upload", "download")}
    assert 0 < sum(of_runs.values()) / len(server.runs(sweep=sweep)) < MAX_REQUESTS, of_runs


@pytest.mark.scenario("two_agents")
def test_a_bare_wandb_agent_on_another_machine_works_too(outcome: Any) -> None:
    """Two points that resolve to the same run are run once, and sent under both ids."""
    server, *_, elsewhere, sweep, (code, output) = outcome
    assert code == 0, output
    runs = server.runs(sweep=sweep)
    assert [run.state for run in runs] == ["finished"] * 2
    assert {run.config["strategy"] for run in runs} == {"head", "gradual"}
    assert {run.config.get("resolved", run.config)["strategy"] for run in runs} == {"head"}
    assert len({run.display_name for run in runs}) == 1
    assert [starts(run) for run in elsewhere.runs(sweep)] == [1]
    assert all(len([row for row in run.history if "epoch" in row]) == 3 for run in runs)


@pytest.mark.scenario("two_agents")
def test_a_run_knows_the_grid_it_belongs_to(outcome: Any) -> None:
    """Those of its runs that this machine has not finished; W&B's own agent does not tell."""
    _, machine, sweep, *_, elsewhere, other, _ = outcome
    told = [(files.read_config(run)["seed"], peers(run)) for run in machine.runs(sweep)]
    assert all(seed in known <= {0, 1, 2} for seed, known in told)
    assert min(len(known) for _, known in told) < max(len(known) for _, known in told)
    assert [peers(run) for run in elsewhere.runs(other)] == [None]


@pytest.mark.scenario("two_agents")
def test_with_nothing_left_to_do_nothing_is_started(outcome: Any) -> None:
    """Whether the sweep is named or not: above all not another one, offline."""
    for code, output in outcome[6]:
        assert code == 0, output
        assert "nothing to do" in output


@scenario
def real(server: Server, folder: Path) -> Any:
    """Real training of a tiny network, analysed where it was made and from a folder that has nothing of it."""
    machine, elsewhere = Machine(server, folder), Machine(server, folder / "elsewhere")
    write_folder(folder / "pictures", {"train": 10, "test": 4})
    parameters = {"data": str(folder / "pictures"), "backbone": "squeezenet1_1", "weights": "none", "image_px": 32}
    sweep = machine.sweep({**parameters, "epochs": 2, "batch_size": 8, "strategy": ["scratch", "head"]}, program=AGENT)
    done = machine.run("python", AGENT, "--agents", "2")
    at_home = machine.run("python", "-m", "analysis")
    (folder / "pictures").rename(folder / "hidden")
    abroad = elsewhere.run("python", "-m", "analysis", f"tester/finetune-sweeps/{sweep}")
    before = server.counts.copy()
    again = elsewhere.run("python", "-m", "analysis")
    return server, sweep, done, at_home, abroad, again, server.counts - before, folder / "reports" / sweep


@pytest.mark.slow
@pytest.mark.scenario("real")
def test_a_real_sweep_is_compared_alike_here_and_from_the_server(outcome: Any) -> None:
    """The same tables and the same prediction grid on a machine without the data, which asks for each run once."""
    server, sweep, done, at_home, abroad, again, asked, reports = outcome
    for code, output in (done, at_home, abroad, again):
        assert code == 0, output
    other = reports.parents[1] / "elsewhere/reports" / sweep
    for name in ("comparison.csv", "recipes.csv", "prediction_grid.png"):
        assert (reports / name).read_bytes() == (other / name).read_bytes(), name
    assert "no longer there" not in abroad[1]
    assert not {"RunFiles", "HistoryPage", "RunHistoryKeys", "RunParquetHistory", "download"} & asked.keys()
    for run in server.runs(sweep=sweep):
        assert run.files["run/thumbnails.zip"][:2] == b"PK"


@scenario
def searches(server: Server, folder: Path) -> Any:
    """Random and Bayesian search, and hyperband on schedules with and without a late last step."""
    machine = Machine(server, folder)
    lr = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}
    drawn = machine.sweep({"lr": lr, "strategy": "head", "epochs": 2}, "random", run_cap=3)
    learnt = machine.sweep({"lr": lr, "strategy": "head", "epochs": 2}, "bayes", run_cap=3)
    codes = [machine.agent(sweep, "--agents", "2") for sweep in (drawn, learnt)]
    return server, drawn, learnt, codes


@pytest.mark.slow
@pytest.mark.scenario("searches")
def test_random_and_bayes_end_at_their_cap(outcome: Any) -> None:
    """With different points, all finished."""
    server, drawn, learnt, codes = outcome
    for sweep, (code, output) in zip((drawn, learnt), codes, strict=True):
        assert code == 0, output
        runs = server.runs(sweep=sweep)
        assert [run.state for run in runs] == ["finished"] * 3
        assert len({run.config["lr"] for run in runs}) == 3


@scenario
def hyperband(server: Server, folder: Path) -> Any:
    """Good runs first; then bad ones, of which one unfreezes late and one never."""
    machine = Machine(server, folder)
    schedules = {"values": [[[0, 0.5]], [[0, 0], [20, 0.5]]]}
    sweep = machine.sweep(
        {"lr": [0.003, 0.009], "strategy": "gradual", "epochs": EPOCHS, "unfreeze": schedules},
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    quick = machine.agent(sweep, "--count", "2", FAKE_SECONDS="0.01")
    slow = machine.agent(sweep, "--agents", "2", FAKE_SECONDS="0.4")
    return server, sweep, quick, slow


@pytest.mark.slow
@pytest.mark.scenario("hyperband")
def test_hyperband_stops_laggards_but_never_before_the_last_unfreeze(outcome: Any) -> None:
    """The server's own rule and its own stop; a stopped run ends after its epoch, and is tested."""
    server, sweep, quick, slow = outcome
    assert quick[0] == 0, quick[1]
    assert slow[0] == 0, slow[1]
    epochs = {}
    for run in server.runs(sweep=sweep):
        assert run.state in ("finished", "killed")
        assert run.summary["state"] == "finished"
        assert "test/accuracy" in run.summary
        epochs[run.config["lr"], len(run.config["unfreeze"])] = run.summary["epochs"]
        first = next(row["epoch"] for row in run.history if "best/val_accuracy" in row)
        assert first == run.config["unfreeze"][-1][0] + 1
    assert epochs[0.003, 1] == epochs[0.003, 2] == EPOCHS
    assert 2 <= epochs[0.009, 1] < EPOCHS
    assert 22 <= epochs[0.009, 2] < EPOCHS

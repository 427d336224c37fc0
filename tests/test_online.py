"""Sweeps on a W&B server, with the real client and its real agents as processes, against the loopback server.

W&B's agent asks for work every 5 s, so that a sweep of a few runs takes a quarter of a minute, most of it waiting. The
scenarios therefore go on side by side, each with a server of its own, and the tests look at what came of them.
"""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune import record
from tests.online import (
    AGENT,
    PROGRAM,
    Machine,
    environment_without_login,
    machines_ended,
    peers,
    sent,
    starts,
    wait_until,
)
from tests.pictures import write_folder
from tests.wandb_server import API_KEY, Server, serve

AT_ONCE = 6
README_REQUESTS = 25  # fewer than this, says README.md

Scenario = Callable[[Server, Path], Any]
SCENARIOS: dict[str, Scenario] = {}
LONG = ("real", "outages", "signals", "two_agents", "failures")  # are started first


def scenario(function: Scenario) -> Scenario:
    """Have this function run beside the others."""
    SCENARIOS[function.__name__] = function
    return function


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Future]]:
    """Start the scenarios that the selected tests ask for; each gets a server and a folder."""
    marks = [item.get_closest_marker("scenario") for item in request.session.items]
    wanted = {mark.args[0] for mark in marks if mark is not None}
    names = [name for name in dict.fromkeys([*LONG, *SCENARIOS]) if name in wanted]

    def play(name: str, folder: Path) -> Any:
        with serve() as server, machines_ended(server):
            outcome = SCENARIOS[name](server, folder)
            assert server.errors == []  # nothing was asked that it does not know
            return outcome

    folders = {name: tmp_path_factory.mktemp(name) for name in names}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play, name, folder) for name, folder in folders.items()}


@pytest.fixture
def outcome(outcomes: dict[str, Future], request: pytest.FixtureRequest) -> Any:
    """Return what the scenario of this test came to."""
    return outcomes[request.node.get_closest_marker("scenario").args[0]].result(600)


@scenario
def two_agents(server: Server, folder: Path) -> Any:
    """A grid with two points that are one run, by `make agents` without a word about which sweep, on two GPUs."""
    machine = Machine(server, folder, {"CUDA_VISIBLE_DEVICES": "0,3"})
    machine.sweep({"lr": [0.001, 0.003], "strategy": ["head", "gradual"], "unfreeze": {"value": [[0, 0]]}, "epochs": 3})
    sweep = machine.sweep({"seed": [0, 1, 2], "strategy": "head", "epochs": 3})
    before = server.counts.copy()
    done = machine.agent()
    asked = server.counts - before
    left = machine.processes()
    elsewhere = Machine(server, folder / "elsewhere")
    other = server.sweeps()[0].id
    by_hand = elsewhere.run("wandb", "agent", f"tester/finetune-sweeps/{other}")
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
        rows, _ = record.read_history(directory)
        epochs = [row for row in run.history if "epoch" in row]
        assert [{key: row[key] for key in rows[0]} for row in epochs] == rows
        assert [row["best/val_accuracy"] for row in epochs] == [row["val/accuracy"] for row in rows]
        assert [row["_step"] for row in epochs] == [1, 2, 3]
        summary = record.read_json(directory / record.SUMMARY)
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
    """The confusion matrix, and the prediction grid's pictures with what was said of them."""
    server, _, sweep, *_ = outcome
    run = server.runs(sweep=sweep)[0]
    files = {name: content for artifact in server.artifacts(run.id) for name, content in artifact.files.items()}
    assert {"test/predictions.table.json", "test/confusion_table.table.json"} <= files.keys()
    assert len([name for name in files if name.endswith(".jpg")]) == 1  # both pictures of the stand-in are the same
    assert b'"cat", "dog"' in files["test/confusion_table.table.json"].replace(b'","', b'", "')


@pytest.mark.scenario("two_agents")
def test_a_run_makes_few_requests(outcome: Any) -> None:
    """What README.md says of a run, files and pictures left out, which go to a storage without a limit."""
    server, _, sweep, _, _, asked, *_ = outcome
    of_agents = ("Heartbeat", "CreateAgent", "SweepWithRuns", "GetSweeps", "GetSweep", "Runs", "file_stream")
    of_runs = {name: count for name, count in asked.items() if name not in (*of_agents, "upload", "download")}
    assert 0 < sum(of_runs.values()) / len(server.runs(sweep=sweep)) < README_REQUESTS, of_runs


@pytest.mark.scenario("two_agents")
def test_a_bare_wandb_agent_on_another_machine_works_too(outcome: Any) -> None:
    """Points that resolve to the same run are run once, and told under each of their ids."""
    server, *_, elsewhere, sweep, (code, output) = outcome
    assert code == 0, output
    runs = server.runs(sweep=sweep)
    assert [run.state for run in runs] == ["finished"] * 4
    assert {run.config["strategy"] for run in runs} == {"head", "gradual"}
    assert {run.config.get("resolved", run.config)["strategy"] for run in runs} == {"head"}
    assert len({run.display_name for run in runs}) == 2
    assert [starts(run) for run in elsewhere.runs(sweep)] == [1, 1]
    assert all(len([row for row in run.history if "epoch" in row]) == 3 for run in runs)


@pytest.mark.scenario("two_agents")
def test_a_run_knows_the_grid_it_belongs_to(outcome: Any) -> None:
    """Those of its runs that this machine has not finished; W&B's own agent does not tell."""
    _, machine, sweep, *_, elsewhere, other, _ = outcome
    told = [(record.read_config(run)["seed"], peers(run)) for run in machine.runs(sweep)]
    assert all(seed in known <= {0, 1, 2} for seed, known in told)
    assert min(len(known) for _, known in told) < max(len(known) for _, known in told)
    assert [peers(run) for run in elsewhere.runs(other)] == [None, None]


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
    done = machine.agent("--agents", "2")
    at_home = machine.run("python", "-m", "analysis")
    (folder / "pictures").rename(folder / "hidden")
    abroad = elsewhere.run("python", "-m", "analysis", f"tester/finetune-sweeps/{sweep}")
    before = server.counts.copy()
    again = elsewhere.run("python", "-m", "analysis")
    return server, sweep, done, at_home, abroad, again, server.counts - before, folder / "reports" / sweep


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
def failures(server: Server, folder: Path) -> Any:
    """A run with a bad config, one that fails, one that is killed; then they are tried again."""
    machine = Machine(server, folder)
    command = ["${env}", "${interpreter}", "${program}", "--label_smoothing=0.05", "${args}"]
    sweep = machine.sweep({"seed": [0, 1, 2, 3], "strategy": "head", "epochs": 2}, command=command)
    wrong = machine.sweep({"lr": [-1, 0.003], "bach_size": 3})
    bad = machine.agent(wrong)
    machine.environment |= {"FAKE_FAIL": "1", "FAKE_CRASH": "2"}
    first = machine.agent(sweep, "--agents", "2")
    states = {run.id: run.state for run in server.runs(sweep=sweep)}
    notes = {run.id: run.summary.get("reason", "") for run in server.runs(sweep=sweep)}
    again = machine.agent(sweep, "--retry-failed", "--agents", "2")
    return server, machine, sweep, wrong, bad, first, states, notes, again


@pytest.mark.scenario("failures")
def test_a_bad_config_fails_its_run_with_the_reason(outcome: Any) -> None:
    """All faults, in the run on the server; the exit code says that a run failed."""
    server, _, _, wrong, (code, output), *_ = outcome
    assert code == 1, output
    runs = server.runs(sweep=wrong)
    assert [run.state for run in runs] == ["failed", "failed"]
    assert "bach_size: no such field. Did you mean 'batch_size'?" in runs[0].summary["reason"]
    assert "lr: -1: Input should be greater than 0" in runs[0].summary["reason"]
    assert runs[0].summary["cause"] == "input"
    assert any("Did you mean" in line for line in runs[0].output)


@pytest.mark.scenario("failures")
def test_failed_and_killed_runs_say_why_and_are_tried_again_under_their_ids(outcome: Any) -> None:
    """W&B never hands them out again; --retry-failed does."""
    server, machine, sweep, _, _, (code, output), states, notes, (again, more) = outcome
    assert code == 1, output
    assert sorted(states.values()) == ["failed"] * 2 + ["finished"] * 2
    assert sum("told to fail" in note for note in notes.values()) == 1
    assert sum("out of memory is the usual cause" in note for note in notes.values()) == 1
    assert again == 0, more
    assert [run.id for run in server.runs(sweep=sweep)] == list(states)
    assert [run.state for run in server.runs(sweep=sweep)] == ["finished"] * 4
    assert sorted(starts(run) for run in machine.runs(sweep)) == [1, 1, 2, 2]
    assert {run.config["label_smoothing"] for run in server.runs(sweep=sweep)} == {0.05}  # what `command` adds
    for run in server.runs(sweep=sweep):
        assert [row["epoch"] for row in run.history if "epoch" in row] == [1, 2]


@scenario
def budget(server: Server, folder: Path) -> Any:
    """All runs fail."""
    machine = Machine(server, folder, {"FAKE_FAIL": ",".join(map(str, range(10)))})
    sweep = machine.sweep({"seed": list(range(10)), "strategy": "head", "epochs": 2})
    given_up = machine.agent(sweep, "--max-failures", "2")
    elsewhere = machine.agent(machine.sweep({"lr": 0.003}, program="agent.py"))
    server.fail(403, only="CreateAgent")
    refused = machine.agent(machine.sweep({"lr": 0.003}))
    return server, sweep, given_up, elsewhere, refused


@pytest.mark.scenario("budget")
def test_failures_in_a_row_end_an_agent(outcome: Any) -> None:
    """With the cause, and what to type next."""
    server, sweep, (code, output), *_ = outcome
    assert code == 1
    assert len(server.runs(sweep=sweep)) == 2
    assert "told to fail" in output
    assert "--retry-failed" in output


@pytest.mark.scenario("budget")
def test_agents_that_can_not_work_say_why(outcome: Any) -> None:
    """In a folder without the sweep's program, whose points they would use up; and where the server refuses them."""
    *_, (code, output), (refused, more) = outcome
    assert code == 2
    assert "there is none in" in output
    assert refused == 1
    assert "agent 1 could not go on" in more
    assert "403" in more


@scenario
def signals(server: Server, folder: Path) -> Any:
    """Ctrl-C at the agents, twice the same sweep; and agents that are killed."""
    machine = Machine(server, folder, {"FAKE_SECONDS": "0.5"})
    sweep = machine.sweep({"seed": [0, 1], "strategy": "head", "epochs": 40})

    def has_rows() -> bool:
        return len(server.runs(sweep=sweep)) == 2 and all(len(run.history) >= 2 for run in server.runs(sweep=sweep))

    first = machine.start("python", AGENT, "--agents", "2")
    wait_until(has_rows)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=240)
    machine.wait_empty()
    stopped = [(run.id, run.state) for run in server.runs(sweep=sweep)]
    epochs = [len(record.read_history(run)[0]) for run in machine.runs(sweep)]

    def both_run() -> bool:
        return all(run.state == "running" for run in server.runs(sweep=sweep))

    by_batch_system = machine.start(
        "python", AGENT, "--agents", "2", FAKE_STEP="1.5"
    )  # a signal comes three times in a step
    wait_until(both_run)
    for process in machine.processes():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    by_batch_system.communicate(timeout=240)
    machine.wait_empty()
    drained = by_batch_system.returncode, [(run.id, run.state) for run in server.runs(sweep=sweep)]

    killed = machine.start("python", AGENT, "--agents", "2")
    wait_until(both_run)
    killed.kill()
    killed.communicate()
    machine.wait_empty()
    died = [(run.id, run.state) for run in server.runs(sweep=sweep)]
    last = machine.agent("--agents", "2", FAKE_SECONDS="0.02")
    return server, machine, sweep, (first.returncode, output), stopped, epochs, drained, died, last


@pytest.mark.scenario("signals")
def test_a_signal_saves_and_preempts_and_the_same_runs_go_on(outcome: Any) -> None:
    """The exit code is that of the signal, no process is left, the server hands the same ids out again."""
    server, machine, sweep, (code, output), stopped, epochs, _, _, (last, more) = outcome
    assert code == 130, output
    assert [state for _, state in stopped] == ["preempted", "preempted"]
    assert all(2 <= count < 40 for count in epochs)
    assert last == 0, more
    runs = server.runs(sweep=sweep)
    assert [run.id for run in runs] == [id for id, _ in stopped]
    assert [run.state for run in runs] == ["finished", "finished"]
    for run in runs:
        assert [row["epoch"] for row in run.history if "epoch" in row] == list(range(1, 41))
    for run_dir in machine.runs(sweep):
        assert [row["epoch"] for row in record.read_history(run_dir)[0]] == list(range(1, 41))


@pytest.mark.scenario("signals")
def test_a_batch_system_may_signal_every_process(outcome: Any) -> None:
    """W&B's own processes among them: the server is told all the same."""
    *_, (code, states), _, _ = outcome
    assert code == 143
    assert [state for _, state in states] == ["preempted", "preempted"]


@pytest.mark.scenario("signals")
def test_runs_end_themselves_when_their_agents_are_killed(outcome: Any) -> None:
    """Nothing is left behind, and the server may hand them out again."""
    *_, died, _ = outcome
    assert [state for _, state in died] == ["preempted", "preempted"]


@scenario
def outages(server: Server, folder: Path) -> Any:
    """Errors all the time; then no server in the middle of a run; then none for a whole run; then all is well."""
    machine = Machine(server, folder, {"FINETUNE_WANDB_WAIT": "5"})
    sweep = machine.sweep({"seed": [0, 1], "strategy": "head", "epochs": 3})
    server.fail(500, share=0.2)
    server.fail(429, share=0.2)
    stormy = machine.agent(sweep, FINETUNE_WANDB_WAIT="60")
    server.heal()
    states = [run.state for run in server.runs(sweep=sweep)]

    other = machine.sweep({"seed": [0, 1], "strategy": "head", "epochs": 6})
    parameters = folder / "parameters.yaml"

    def trial(run: str, seed: int) -> tuple[int, str]:
        parameters.write_text(
            f"wandb_version: 1\nseed: {{value: {seed}}}\nepochs: {{value: 6}}\nstrategy: {{value: head}}\n"
        )
        handed = {"WANDB_SWEEP_ID": other, "WANDB_RUN_ID": run, "WANDB_ENTITY": "tester"}
        return machine.run(
            "python", PROGRAM, f"--seed={seed}", **handed, FAKE_SECONDS="0.5",
            WANDB_PROJECT="finetune-sweeps", WANDB_SWEEP_PARAM_PATH=parameters,
        )  # fmt: skip

    server.fall_in_run()
    gone = trial("aaaa0000", 0)
    never = trial("bbbb0000", 1)
    missed = [sent(run) for run in machine.runs(other)]
    server.come_back()
    published = machine.run("python", "-m", "finetune.publish", f"runs/{other}")
    counted = server.counts.copy()
    again = machine.run("python", "-m", "finetune.publish", f"runs/{other}")
    asked = server.counts - counted
    return server, machine, stormy, states, other, gone, never, missed, published, again, asked


@pytest.mark.scenario("outages")
def test_errors_of_the_server_lose_nothing(outcome: Any) -> None:
    """One answer in three is an error."""
    server, _, (code, output), states, *_ = outcome
    assert code == 0, output
    assert states == ["finished", "finished"]
    for run in server.runs():
        assert [row["epoch"] for row in run.history if "epoch" in row] == list(range(1, 1 + run.config["epochs"]))


@pytest.mark.scenario("outages")
def test_a_server_that_is_gone_is_no_fault_of_the_run(outcome: Any) -> None:
    """In mid-run or from the start: the run directory is complete, the exit code 0, and it says what to do."""
    _, machine, _, _, other, gone, never, missed, *_ = outcome
    for code, output in (gone, never):
        assert code == 0, output
        assert f"make publish SWEEP=runs/{other}" in output
    assert [record.status(run)[0] for run in machine.runs(other)] == ["finished", "finished"]
    assert not any(note.get("sent") for notes in missed for note in notes)


@pytest.mark.scenario("outages")
def test_publish_sends_what_was_missed_once(outcome: Any) -> None:
    """Under the ids the server had given where it had; a second time there is nothing to send."""
    server, _, _, _, other, _, _, _, (code, output), (again, more), asked = outcome
    assert code == 0, output
    runs = {run.id: run for run in server.runs(sweep=other)}
    assert "aaaa0000" in runs
    assert len(runs) == 2
    for run in runs.values():
        assert run.state == "finished"
        assert [row["epoch"] for row in run.history if "epoch" in row] == list(range(1, 7))
        assert "run/predictions.csv" in run.files
        assert run.summary["test/accuracy"] == 0.7 - 0.01 * run.config["seed"]
    assert again == 0, more
    assert "0 runs to send" in more
    assert not asked["UpsertBucket"]
    assert not asked["file_stream"]


@scenario
def offline(server: Server, folder: Path) -> Any:
    """Without a login, and with WANDB_MODE=offline: `make agents` runs the sweep file; publish sends it later."""
    machine = Machine(server, folder)
    spec = "method: grid\nmetric: {name: best/val_accuracy, goal: maximize}\nparameters:\n  seed: {values: [0, 1]}\n"
    (folder / "sweeps/strategies.yaml").write_text(
        f"program: agent.py\nproject: finetune-sweeps\n{spec}  strategy: {{value: head}}\n  epochs: {{value: 2}}\n"
    )
    program = PROGRAM
    no_login = machine.run("python", program, **environment_without_login())
    (folder / "runs/strategies/plan.json").write_text('{"runs": ["not-there"]}')
    mode = machine.run("python", program, WANDB_MODE="offline")
    needs = machine.run("python", program, "abcd1234", WANDB_MODE="offline")
    nothing = dict(server.counts)
    published = machine.run("python", "-m", "finetune.publish", "runs/strategies")
    there = [(run.id, run.state, len(run.history), run.sweep) for run in server.runs()]
    again = machine.run("python", "-m", "finetune.publish", "runs/strategies")
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
    return server, machine, (copied, after, lost.id, deleted), no_login, mode, needs, nothing, published, there, again


@pytest.mark.scenario("offline")
def test_without_w_and_b_a_sweep_runs_offline_and_it_is_said(outcome: Any) -> None:
    """No login, or switched off: no request is made; a sweep that is on the server can't be run, which is said."""
    _, machine, _, no_login, mode, needs, nothing, *_ = outcome
    for (code, output), why in ((no_login, "not logged in"), (mode, "WANDB_MODE is offline")):
        assert code == 0, output
        assert why in output
        assert "running" in output
        assert "offline" in output
    assert needs[0] == 2
    assert "abcd1234 is a sweep on a W&B server, but WANDB_MODE is offline" in needs[1]
    assert nothing == {}
    assert len(machine.runs("strategies")) == 2


@pytest.mark.scenario("offline")
def test_publish_replays_an_offline_sweep_and_a_second_time_changes_nothing(outcome: Any) -> None:
    """The sweep, its runs with their own ids, history, summary, files; finished on the server as here."""
    server, machine, *_, (code, output), there, (again, more) = outcome
    assert code == 0, output
    assert {id for id, *_ in there} == {run.name for run in machine.runs("strategies")}
    assert {state for _, state, *_ in there} == {"finished"}
    (sweep,) = server.sweeps()
    assert {sweep_id for *_, sweep_id in there} == {sweep.id}
    assert sweep.state == "FINISHED"
    assert again == 0, more
    assert "0 runs to send" in more
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
    analysis = machine.run("python", "-m", "analysis", f"tester/finetune-sweeps/{sweep}")
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
    assert record.read_json(folder / record.REMOTE)["url"] == f"{page}/sweeps/{sweep}"
    assert {note["url"] for run in machine.runs(sweep) for note in sent(run)} == {
        f"{page}/runs/{run.id}" for run in server.runs(sweep=sweep)
    }


@scenario
def searches(server: Server, folder: Path) -> Any:
    """Random and Bayesian search, and hyperband on schedules with and without a late last step."""
    machine = Machine(server, folder)
    lr = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}
    drawn = machine.sweep({"lr": lr, "strategy": "head", "epochs": 2}, "random", run_cap=3)
    learnt = machine.sweep({"lr": lr, "strategy": "head", "epochs": 2}, "bayes", run_cap=3)
    codes = [machine.agent(sweep, "--agents", "2") for sweep in (drawn, learnt)]
    return server, drawn, learnt, codes


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
        {"lr": [0.003, 0.009], "strategy": "gradual", "epochs": 60, "unfreeze": schedules},
        early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2},
    )
    quick = machine.agent(sweep, "--count", "2", FAKE_SECONDS="0.01")
    slow = machine.agent(sweep, "--agents", "2", FAKE_SECONDS="0.4")
    return server, sweep, quick, slow


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
    assert epochs[0.003, 1] == epochs[0.003, 2] == 60
    assert 2 <= epochs[0.009, 1] < 60
    assert 22 <= epochs[0.009, 2] < 60


@scenario
def stops(server: Server, folder: Path) -> Any:
    """`wandb sweep --pause`, `--resume`, `--stop` and `--cancel`, while an agent works."""
    machine = Machine(server, folder, {"FAKE_SECONDS": "0.3"})
    seen = {}
    for word, epochs in (("stop", 8), ("cancel", 100)):
        sweep = machine.sweep({"seed": list(range(6)), "strategy": "head", "epochs": epochs})
        agent = machine.start("python", AGENT, sweep)
        wait_until(lambda sweep=sweep: any(run.history for run in server.runs(sweep=sweep)))
        machine.run("wandb", "sweep", f"--{word}", f"tester/finetune-sweeps/{sweep}")
        output, _ = agent.communicate(timeout=90)
        machine.wait_empty()
        seen[word] = agent.returncode, output, [run.state for run in server.runs(sweep=sweep)]
    return seen


@pytest.mark.scenario("stops")
def test_stop_lets_runs_end_and_cancel_kills_them(outcome: Any) -> None:
    """In both cases the agents end, and no process is left."""
    code, output, states = outcome["stop"]
    assert code == 0, output
    assert set(states) == {"finished"}
    assert len(states) < 6
    code, output, states = outcome["cancel"]
    assert states == ["killed"], output

"""Sweeps on a W&B server where something goes wrong: runs, agents, signals, the server; nothing is lost."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.rundir import files
from tests.online.machine import PROGRAM, Machine, sent, starts
from tests.support.scenarios import outcome, outcomes, scenario
from tests.support.wandb_server.server import Server

__all__ = ["outcome", "outcomes"]

EPOCHS = 200  # of half a second: runs that are stopped three times on the way, with the machine busy in between


@scenario
def failures(server: Server, folder: Path) -> Any:
    """Runs with a bad config; of another sweep, a run that fails and one that is killed, which are tried again."""
    machine = Machine(server, folder)
    wrong = machine.sweep({"seed": list(range(10)), "lr": -1, "bach_size": 3})
    bad = machine.agent(wrong, "--max-failures", "2")
    command = ["${env}", "${interpreter}", "${program}", "--label_smoothing=0.05", "${args}"]
    sweep = machine.sweep({"seed": [0, 1, 2], "strategy": "head", "epochs": 2}, command=command)
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
def test_failures_in_a_row_end_an_agent(outcome: Any) -> None:
    """With the cause, and what to type next; the sweep has ten points."""
    server, _, _, wrong, (_, output), *_ = outcome
    assert len(server.runs(sweep=wrong)) == 2
    assert "no such field" in output
    assert "--retry-failed" in output


@pytest.mark.scenario("failures")
def test_failed_and_killed_runs_say_why_and_are_tried_again_under_their_ids(outcome: Any) -> None:
    """W&B never hands them out again; --retry-failed does."""
    server, machine, sweep, _, _, (code, output), states, notes, (again, more) = outcome
    assert code == 1, output
    assert "told to fail" in output
    assert sorted(states.values()) == ["failed"] * 2 + ["finished"]
    assert sum("told to fail" in note for note in notes.values()) == 1
    assert sum("out of memory is the usual cause" in note for note in notes.values()) == 1
    assert again == 0, more
    assert [run.id for run in server.runs(sweep=sweep)] == list(states)
    assert [run.state for run in server.runs(sweep=sweep)] == ["finished"] * 3
    assert sorted(starts(run) for run in machine.runs(sweep)) == [1, 2, 2]
    assert {run.config["label_smoothing"] for run in server.runs(sweep=sweep)} == {0.05}  # what `command` adds
    for run in server.runs(sweep=sweep):
        assert [row["epoch"] for row in run.history if "epoch" in row] == [1, 2]


@scenario
def refusals(server: Server, folder: Path) -> Any:
    """A sweep whose program is not here, and a server that takes no agents."""
    machine = Machine(server, folder)
    elsewhere = machine.agent(machine.sweep({"lr": 0.003}, program="agent.py"))
    server.fail(403, only="CreateAgent")
    refused = machine.agent(machine.sweep({"lr": 0.003}))
    return elsewhere, refused


@pytest.mark.scenario("refusals")
def test_agents_that_can_not_work_say_why(outcome: Any) -> None:
    """In a folder without the sweep's program, whose points they would use up; and where the server refuses them."""
    (code, output), (refused, more) = outcome
    assert code == 2
    assert "there is none in" in output
    assert refused == 1
    assert "agent 1 could not go on" in more
    assert "403" in more


@scenario
def signals(server: Server, folder: Path) -> Any:
    """Ctrl-C at two agents; then one that a batch system ends with all it has started, and one that is killed."""
    machine = Machine(server, folder, {"FAKE_SECONDS": "0.5"})
    sweep = machine.sweep({"seed": [0, 1], "strategy": "head", "epochs": EPOCHS})

    def has_rows() -> bool:
        return len(server.runs(sweep=sweep)) == 2 and all(len(run.history) >= 2 for run in server.runs(sweep=sweep))

    first = machine.start("python", PROGRAM, "--agents", "2")
    machine.wait_until(has_rows)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=400)
    machine.wait_empty()
    stopped = [(run.id, run.state) for run in server.runs(sweep=sweep)]
    epochs = [len(files.read_history(run)[0]) for run in machine.runs(sweep)]

    def one_runs() -> bool:
        return any(run.state == "running" for run in server.runs(sweep=sweep))

    by_batch_system = machine.start("python", PROGRAM, FAKE_STEP="1.5")  # a signal comes three times in a step
    machine.wait_until(one_runs)
    for process in machine.processes():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    by_batch_system.communicate(timeout=400)
    machine.wait_empty()
    drained = by_batch_system.returncode, [(run.id, run.state) for run in server.runs(sweep=sweep)]

    killed = machine.start("python", PROGRAM)
    machine.wait_until(one_runs)
    killed.kill()
    killed.communicate()
    machine.wait_empty()
    died = [(run.id, run.state) for run in server.runs(sweep=sweep)]
    last = machine.agent("--agents", "2", FAKE_SECONDS="0.01")
    return server, machine, sweep, (first.returncode, output), stopped, epochs, drained, died, last


@pytest.mark.scenario("signals")
def test_a_signal_saves_and_preempts_and_the_same_runs_go_on(outcome: Any) -> None:
    """The exit code is that of the signal, no process is left, the server hands the same ids out again."""
    server, machine, sweep, (code, output), stopped, epochs, _, _, (last, more) = outcome
    assert code == 130, output
    assert [state for _, state in stopped] == ["preempted", "preempted"]
    assert all(2 <= count < EPOCHS for count in epochs)
    assert last == 0, more
    runs = server.runs(sweep=sweep)
    assert [run.id for run in runs] == [id for id, _ in stopped]
    assert [run.state for run in runs] == ["finished", "finished"]
    for run in runs:
        assert [row["epoch"] for row in run.history if "epoch" in row] == list(range(1, 1 + EPOCHS))
    for run_dir in machine.runs(sweep):
        assert [row["epoch"] for row in files.read_history(run_dir)[0]] == list(range(1, 1 + EPOCHS))


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
def errors(server: Server, folder: Path) -> Any:
    """One answer in three is an error."""
    machine = Machine(server, folder)
    sweep = machine.sweep({"seed": [0, 1], "strategy": "head", "epochs": 3})
    server.fail(500, share=0.2)
    server.fail(429, share=0.2)
    ended = machine.agent(sweep)
    server.heal()
    return server, ended, [run.state for run in server.runs(sweep=sweep)]


@pytest.mark.slow
@pytest.mark.scenario("errors")
def test_errors_of_the_server_lose_nothing(outcome: Any) -> None:
    """The runs are finished here and there, with all their epochs."""
    server, (code, output), states = outcome
    assert code == 0, output
    assert states == ["finished", "finished"]
    for run in server.runs():
        assert [row["epoch"] for row in run.history if "epoch" in row] == list(range(1, 1 + run.config["epochs"]))


@scenario
def outages(server: Server, folder: Path) -> Any:
    """No server in the middle of a run; then none for a whole run; then all is well."""
    machine = Machine(server, folder, {"FINETUNE_WANDB_WAIT": "5"})
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
    return server, machine, other, gone, never, missed, published


@pytest.mark.scenario("outages")
def test_a_server_that_is_gone_is_no_fault_of_the_run(outcome: Any) -> None:
    """In mid-run or from the start: the run directory is complete, the exit code 0, and it says what to do."""
    _, machine, other, gone, never, missed, *_ = outcome
    for code, output in (gone, never):
        assert code == 0, output
        assert f"make publish SWEEP=runs/{other}" in output
    assert [files.status(run)[0] for run in machine.runs(other)] == ["finished", "finished"]
    assert not any(note.get("sent") for notes in missed for note in notes)


@pytest.mark.scenario("outages")
def test_publish_sends_what_was_missed(outcome: Any) -> None:
    """Under the ids the server had given where it had."""
    server, _, other, _, _, _, (code, output) = outcome
    assert code == 0, output
    runs = {run.id: run for run in server.runs(sweep=other)}
    assert "aaaa0000" in runs
    assert len(runs) == 2
    for run in runs.values():
        assert run.state == "finished"
        assert [row["epoch"] for row in run.history if "epoch" in row] == list(range(1, 7))
        assert "run/predictions.csv" in run.files
        assert run.summary["test/accuracy"] == 0.7 - 0.01 * run.config["seed"]


@scenario
def stops(server: Server, folder: Path) -> Any:
    """`wandb sweep --pause`, `--resume`, `--stop` and `--cancel`, while an agent works."""
    machine = Machine(server, folder, {"FAKE_SECONDS": "0.3"})
    seen = {}
    for word, epochs in (("stop", 8), ("cancel", 100)):
        sweep = machine.sweep({"seed": list(range(6)), "strategy": "head", "epochs": epochs})
        agent = machine.start("python", PROGRAM, sweep)
        machine.wait_until(lambda sweep=sweep: any(run.history for run in server.runs(sweep=sweep)))
        machine.run("wandb", "sweep", f"--{word}", f"tester/finetune-sweeps/{sweep}")
        output, _ = agent.communicate(timeout=300)
        machine.wait_empty()
        seen[word] = agent.returncode, output, [run.state for run in server.runs(sweep=sweep)]
    return seen


@pytest.mark.slow
@pytest.mark.scenario("stops")
def test_stop_lets_runs_end_and_cancel_kills_them(outcome: Any) -> None:
    """In both cases the agents end, and no process is left."""
    code, output, states = outcome["stop"]
    assert code == 0, output
    assert set(states) == {"finished"}
    assert len(states) < 6
    code, output, states = outcome["cancel"]
    assert states == ["killed"], output

"""How agents of a sweep on W&B end: what W&B has not got of a finished run is no failure, and all else is one."""

from collections import Counter
from pathlib import Path

import pytest

from finetune.sweep.agents.wandb_agents import AgentSupervisor
from finetune.system import documents
from finetune.system.signals import ReceivedSignals
from finetune.tracking import sweep_server, wandb_exit
from finetune.tracking.sweep_server import FailedWandbRun, WandbSweep
from tests.support.fabricate import fabricate_run

SWEEP = WandbSweep("tester", "trials", "abcdefgh")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a sweep whose one run the server takes for crashed."""
    states = [Counter(), Counter(crashed=1)]  # before and after
    crashed = [FailedWandbRun("r1", {}, "no reason is known", "")]
    monkeypatch.setattr(sweep_server, "count_states", lambda _: states.pop(0))
    monkeypatch.setattr(sweep_server, "failed_runs", lambda _: crashed)
    monkeypatch.setattr(wandb_exit, "end", lambda: None)
    return tmp_path


@pytest.mark.parametrize(("sent", "code"), [(False, 0), (True, 1), (None, 1)])
def test_a_run_that_is_finished_here_is_sent_and_not_run_again(
    folder: Path, sent: bool | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Known by its W&B id; one that W&B was sent, or that nothing is known of here, has really crashed there."""
    supervisor = AgentSupervisor(SWEEP, folder, 1)
    run = fabricate_run(folder, "head-1", strategy="head")
    if sent is not None:
        documents.write_json(run / "wandb-r1.json", {"sent": sent})
    supervisor.watcher.update()
    assert supervisor.show_end(ReceivedSignals()) == code
    said = capsys.readouterr().out
    assert (f"make publish SWEEP={folder}" in said.replace("\n", "")) == (code == 0)
    assert ("--retry-failed" in said) == (code == 1)

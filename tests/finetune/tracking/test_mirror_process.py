"""How often the mirror tries to reach W&B: a refusal of a busy client costs no run its copy; a lasting one is told."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.system import documents
from finetune.tracking import mirror_process, wandb_run
from finetune.tracking.mirror_client import WandbRunRef
from tests.support.fabricate import fabricate_run

RUN_REF = WandbRunRef("tester", "trials", "abcd1234")


def serve(monkeypatch: pytest.MonkeyPatch, refusals: int, is_over: bool) -> tuple[int, list[dict[str, Any]], int]:
    """Mirror a run that W&B refuses so many times; return the exit code, what was said, and how often it was opened."""
    opened: list[str] = []

    def open_run(*_: Any) -> Any:
        opened.append("")
        if len(opened) <= refusals:
            raise wandb_run.WandbError("the service process is busy")
        return SimpleNamespace(url="https://w/run")

    monkeypatch.setattr(wandb_run, "open_run", open_run)
    monkeypatch.setattr(wandb_run, "forget", lambda: None)
    monkeypatch.setattr(mirror_process.Mirror, "copy_until_end", lambda *_: None)
    commands: Any = SimpleNamespace(end={"state": "finished"} if is_over else None, wait=lambda _: None)
    said: list[dict[str, Any]] = []
    code = mirror_process.Mirror(RUN_REF, commands, said.append, Path(), 1).connect_and_copy(None)
    return code, said, len(opened)


def test_a_run_that_is_over_is_offered_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own process may only have been busy."""
    code, said, opened = serve(monkeypatch, refusals=1, is_over=True)
    assert (code, opened) == (0, 2)
    assert said == [{"connecting": True}, {"error": "Error: the service process is busy"}, {"url": "https://w/run"}]


def test_a_lasting_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 1 once the run is over; while it goes on, it is offered again and again."""
    assert serve(monkeypatch, refusals=100, is_over=True)[::2] == (1, mirror_process.MAX_REFUSED)
    assert serve(monkeypatch, refusals=100, is_over=False)[::2] == (0, 101)


def test_a_run_s_id_is_noted_before_the_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a silent server missed is sent under the id that it handed out; a note that is there stays."""
    run = fabricate_run(tmp_path, "head-1", strategy="head")
    note = run / "wandb-abcd1234.json"
    seen: list[Any] = []
    monkeypatch.setattr(
        mirror_process.Mirror, "connect_and_copy", lambda *_: seen.append(documents.read_json(note)) or 1
    )
    commands: Any = SimpleNamespace(end=None, run_dir=run, wait=lambda _: None)
    mirror = mirror_process.Mirror(RUN_REF, commands, lambda _: None, tmp_path, 1)
    assert mirror.run() == 1
    documents.write_json(note, {"path": "kept", "sent": True})
    assert mirror.run() == 1
    assert seen == [{"path": "tester/trials/abcd1234", "sent": False}, {"path": "kept", "sent": True}]

"""Keys, tokens and passwords are nowhere in what a run, a report or a command leaves behind or says."""

import json
import logging
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import agent
from analysis.__main__ import main as analyse
from finetune.__main__ import main as finetune
from finetune.errors import UserError
from finetune.publish import main as publish
from finetune.rundir import files, keys
from finetune.sweep.agents import wandb_agents
from finetune.sweep.agents.training_api import AgentOptions
from finetune.system.output import logging_to, safe_streams
from finetune.system.redaction import redact, redact_values, reload_environment_secrets
from finetune.tracking import sweep_server
from finetune.tracking.sweep_server import WandbSweep
from tests.analysis.conftest import leave_figures_blank
from tests.support.agent_processes import CODE
from tests.support.fabricate import fabricate_run

KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB_KEY = "wandb_v1_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
HF_TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01"
PASSWORD = "pr0xy-passw0rd"
TOKEN = "ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
SECRETS = (KEY, WANDB_KEY, HF_TOKEN, PASSWORD, TOKEN, "s1gnatur3")
SIGNED = "https://host/f.zip?X-Amz-Credential=AKIAABCDEFGHIJKLMNOP&X-Amz-Signature=s1gnatur3&part=2"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Secrets where users have them: in the environment, and in the address of a proxy."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", HF_TOKEN)
    monkeypatch.setenv("ALL_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    reload_environment_secrets()
    yield
    reload_environment_secrets()


def leaks(text: str) -> list[str]:
    """Return the secrets that a text holds."""
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("text", [
    f"the server answers: {KEY} is no key", f"WANDB_API_KEY={KEY}", f"api_key: '{KEY}'", f"password {KEY}",
    f"key={WANDB_KEY}", WANDB_KEY, f"Authorization: Bearer {HF_TOKEN}", f"https://{TOKEN}@github.com/a/b",
    f"https://me:{TOKEN}@github.com/a/b", f"http://me:{PASSWORD}@proxy:3128", f"407 for {PASSWORD}", SIGNED,
    f"https://host/x?a=1&token={TOKEN}#x", json.dumps({"url": f"https://host/?access_token={TOKEN}"}),
])  # fmt: skip
def test_secrets_are_taken_out(text: str) -> None:
    """Of the environment, of addresses, of known forms, and what a word calls a key."""
    assert leaks(redact(text)) == []
    assert leaks(str(redact_values({"a": [text, {"b": text}]}))) == []
    assert "***" in redact(text)


@pytest.mark.parametrize("text", [
    "commit c3f1a9b2c3f1a9b2c3f1a9b2c3f1a9b2c3f1a9b2", "its SHA-256 is " + "ab" * 32, "me@example.com",
    "git@github.com:a/b.git", "https://host/f.zip?part=2", "runs/demo/head-0123abcd", "lr 0.001 seed 3", "",
])  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    """Commits, digests, addresses of mail and pages are needed."""
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["key-", "?key-", "://a:", "key =", "token ", "?a=", "Bearer ", "@:", "x-amz-"])
def test_no_text_takes_long(piece: str) -> None:
    """A server may answer with anything, and every line of a log is looked at."""
    began = time.process_time()
    redact("?" + piece * (100_000 // len(piece)))
    redact("?" + piece * 1000 + "0" * 40)
    assert time.process_time() - began < 5


def test_a_run_directory_has_none(tmp_path: Path) -> None:
    """Config, provenance, state and log of a run whose fields and errors are full of them."""
    run = tmp_path / "runs" / "s" / "head-1"
    run.mkdir(parents=True)
    files.write_config(run, {"data": f"https://me:{TOKEN}@host/x"}, {"command": f"--data {SIGNED}", "x": [HF_TOKEN]})
    files.write_state(run, "failed", f"ProxyError: http://me:{PASSWORD}@proxy refused {KEY}")
    with logging_to(file=run / keys.LOG):
        logging.getLogger("finetune").info(f"fetching {SIGNED} with {WANDB_KEY}")
    for file in run.iterdir():
        assert leaks(file.read_text()) == [], file


def test_a_password_that_is_a_word_changes_no_stored_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths and class names stay as they are, or the config would not lead to the images."""
    monkeypatch.setenv("DB_PASSWORD", "pictures")
    reload_environment_secrets()
    config = {"data": "/home/me/pictures", "weights": f"https://me:{TOKEN}@host/pictures.pth"}
    files.write_config(tmp_path, config, {"data_root": "/home/me/pictures", "classes": ["pictures of cats"]})
    stored = files.read_config(tmp_path)
    assert stored["data"] == stored["provenance"]["data_root"] == "/home/me/pictures"
    assert stored["provenance"]["classes"] == ["pictures of cats"]
    assert stored["weights"] == "https://***@host/pictures.pth"
    assert redact("no pictures here") == "no *** here"


def test_a_report_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of run directories and a sweep file that another program, or an earlier version, wrote with secrets in them."""
    folder = tmp_path / "runs" / "s"
    answers = [("a.jpg", "disc", "disc", 0.9), ("b.jpg", "square", "disc", 0.6)]
    for name in ("head", "full"):
        fabricate_run(folder, f"{name}-1", strategy=name, predictions=answers)
    failed = fabricate_run(folder, "bad-1", state="failed")
    (failed / keys.STATE).write_text(json.dumps({"state": "failed", "reason": f"{SIGNED} {KEY} {WANDB_KEY}"}))
    for run in files.find_runs(folder):
        (run / "wandb-a.json").write_text(json.dumps({"url": f"https://me:{PASSWORD}@host/e/p/runs/a"}))
    (folder / keys.SWEEP).write_text(f"command: [env, WANDB_API_KEY={KEY}, HF={HF_TOKEN}]\n")
    leave_figures_blank(monkeypatch)
    assert analyse([str(folder), "--out", str(tmp_path / "out")]) == 0
    written = [
        path for path in (tmp_path / "out").rglob("*") if path.suffix in (".html", ".json", ".csv", ".md", ".tex")
    ]
    assert len(written) > 8
    for file in written:
        assert leaks(file.read_text(encoding="utf-8")) == [], file
    assert 'href="https://host/e/p/runs/a"' in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_messages_have_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong address with a token on the command line is told without the token; so is what a library says."""
    monkeypatch.chdir(tmp_path)
    assert finetune(["--data", f"https://me:{TOKEN}@host/{PASSWORD}?token={HF_TOKEN}", "--weights", "none"]) == 2
    with safe_streams():
        print(UserError(f"W&B does not answer: {SIGNED} {WANDB_KEY}"))
    said = capsys.readouterr()
    assert "https://***@host/" in said.err
    assert leaks(said.out + said.err) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


HOLDING = {
    "an address": f"parameters: {{data: {{value: 'https://me:{TOKEN}@host/pictures'}}}}",
    "a link": f"parameters: {{weights: {{values: [none, '{SIGNED}']}}}}",
    "a command": f"command: [env, WANDB_API_KEY={KEY}, python, agent.py]\nparameters: {{lr: {{value: 0.1}}}}",
    "a comment": f"# for {PASSWORD}\nparameters: {{lr: {{value: 0.1}}}}",
}


@pytest.mark.parametrize("where", HOLDING)
@pytest.mark.parametrize("stored", [False, True])
def test_a_sweep_file_with_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str, stored: bool
) -> None:
    """With its line, told without the secret; a file as well as a sweep that was stored before, to run or to send."""
    file = tmp_path / ("runs/s/sweep.yaml" if stored else "s.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"method: grid\n{HOLDING[where]}\n")
    monkeypatch.chdir(tmp_path)
    assert agent.main([str(file.parent if stored else file)], CODE) == 2
    if stored:
        monkeypatch.setenv("WANDB_MODE", "online")
        assert publish([str(file.parent)]) == 2
    said = capsys.readouterr()
    assert said.err.count("take the password, token or key out") == 1 + stored
    assert HOLDING[where].partition(":")[0].lstrip("# ").split()[0] in said.err
    assert leaks(said.out + said.err) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == [file]


def test_a_setting_with_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it gets into the sweep that is stored; the same sweep without it is run."""
    (tmp_path / "s.yaml").write_text("method: grid\nparameters: {strategy: {value: head}}\n")
    monkeypatch.chdir(tmp_path)
    assert agent.main(["s.yaml", "--set", f"data=https://me:{TOKEN}@host/x"], CODE) == 2
    assert not (tmp_path / "runs").exists()
    assert agent.main(["s.yaml", "--set", "data=https://host/x", "--plan"], CODE) == 0
    said = capsys.readouterr()
    assert "https://***@host/x" in said.err
    assert leaks(said.out + said.err) == []


def test_a_sweep_on_a_server_is_kept_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its command holds is for the runs alone; a parameter, which W&B's agent writes into files, is refused."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_server, "failed_runs", lambda _: [])
    monkeypatch.setattr(sweep_server, "count_states", lambda _: Counter())
    spec = {"command": ["env", f"HF={HF_TOKEN}"], "method": "grid", "parameters": {"lr": {"values": [0.1, 0.2]}}}
    assert wandb_agents.retry_failed(WandbSweep("e", "p", "abcdefgh", spec=spec), CODE, AgentOptions()) == 0
    stored = (tmp_path / "runs/abcdefgh/sweep.yaml").read_text()
    assert leaks(stored) == []
    assert "HF=***" in stored
    assert spec["command"][1] == f"HF={HF_TOKEN}"
    spec["parameters"] = {"data": {"value": SIGNED}}
    with pytest.raises(UserError, match="a password, token or key is in data"):
        wandb_agents.run_online(WandbSweep("e", "p", "ijklmnop", "RUNNING", spec), CODE, AgentOptions())
    assert not (tmp_path / "runs/ijklmnop").exists()


def test_a_note_on_a_download_has_none(tmp_path: Path) -> None:
    """What lies beside a half-fetched file tells its address without the signature, and still knows it again."""
    from finetune.system.download import RemoteFileInfo, _PartialFile

    path = tmp_path / "f.zip"
    _PartialFile(SIGNED, path).note_info(RemoteFileInfo(3, "x"))
    assert leaks((tmp_path / "f.zip.part.json").read_text()) == []
    assert _PartialFile(SIGNED, path).info() == RemoteFileInfo(3, "x")
    assert _PartialFile(SIGNED.replace("part=2", "part=3"), path).info() is None


def test_wandb_is_not_told_the_address_of_a_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's client would send the remote of the checkout, token and all; it is told not to look, and gets no reason."""
    from finetune.tracking import wandb_run
    from finetune.tracking.mirror_client import WandbRunRef

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", f"https://{TOKEN}@h/x"], check=True)
    given: dict[str, Any] = {}

    class Run:
        summary: dict[str, Any] = {}  # noqa: RUF012
        define_metric = finish = staticmethod(lambda *_, **__: None)

    monkeypatch.setattr(wandb_run.wandb, "init", lambda **keywords: given.update(keywords) or Run())
    client = wandb_run.ClientOptions(tmp_path, 1, 5.0, lambda: None)
    run: Any = wandb_run.open_run(WandbRunRef("e", "p", "r"), None, client)
    assert given["settings"].disable_git
    wandb_run.finish_failed(run, 1, "failed", f"{SIGNED} {KEY}", "code")
    assert leaks(str(run.summary)) == []

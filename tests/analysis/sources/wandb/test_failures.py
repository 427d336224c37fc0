"""A server that is busy, gone or hostile, and fetches that are cut short: no harm is done, and it is said."""

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.errors import InputError
from analysis.sources.wandb import client, errors, store
from analysis.sources.wandb.rate_limit import Limiter
from analysis.sources.wandb.sync import SyncResult, sync_runs
from finetune.rundir import files, keys
from finetune.system import atomic, documents
from finetune.system.atomic import replacing
from finetune.tracking.sweep_address import SweepAddress
from tests.analysis.sources.wandb.pulling import as_fetched, config_as_fetched, contents, no_progress, pulled, requests
from tests.online.runs_on_server import FILES, PROJECT, fetched_note, put_run, put_sweep
from tests.support.fabricate import fabricate_run
from tests.support.wandb_server.server import Server
from tests.support.wandb_server.store import ENTITY


@pytest.mark.parametrize("stop_at", [0, 2, 4, 5, 6])
def test_an_interrupted_fetch_leaves_no_run_that_seems_finished(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Cut off after any file, a run is not taken for finished before all of it is there; the next pull ends it."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "a", predictions=[("a.png", "disc", "disc", 0.5)])
    (run_dir / keys.LOG).write_text("log\n")
    put_run(server, sweep, run_dir)
    here = tmp_path / "here" / "a"
    wanted = {name: content for name, content in as_fetched(contents(run_dir)).items() if name in FILES}
    real, written = replacing, []

    def cut_off(path: Path) -> Any:
        if path.parent == here:
            written.append(path.name)
            if len(written) > stop_at:
                raise KeyboardInterrupt
        return real(path)

    with monkeypatch.context() as patch:
        for module in (atomic, store):
            patch.setattr(module, "replacing", cut_off)
        with pytest.raises(KeyboardInterrupt):
            pulled(sweep, here.parent)
    if files.is_run_dir(here) and files.status(here)[0] == "finished":
        assert {name: content for name, content in contents(here).items() if name in FILES} == wanted
    pulled(sweep, here.parent)
    assert {name: content for name, content in contents(here).items() if name in FILES} == wanted
    assert not [name for name in contents(here) if name.startswith(".")]


def test_a_name_from_the_server_never_leaves_the_folder(server: Server, tmp_path: Path) -> None:
    """What can't be a directory's name is replaced by the W&B run's own id; other files than ours are not taken."""
    sweep = put_sweep(server)
    run_dir, runs = fabricate_run(tmp_path / "there", "a"), []
    for name in ("../../escaped", "/tmp/escaped", "..", ".", ".hidden", "", "sweep.yaml", 7, ["a"], "x" * 200, "a\n"):
        run = put_run(server, sweep, run_dir)
        run.raw_config["provenance"] = {"value": {"run_id": name}}
        run.files |= {"run/../../escaped": b"x", "run/evil.sh": b"x", "config.yaml": b"x", "run/best.pt": b"x"}
        runs.append(run.id)
    before = set(contents(tmp_path))
    assert pulled(sweep, tmp_path / "here").fetched == len(runs)
    assert {path.name for path in files.find_runs(tmp_path / "here")} == set(runs)
    allowed = {f"here/{run}/{file}" for run in runs for file in (*FILES, keys.STATE, f"wandb-{run}.json")}
    new = {path for path in set(contents(tmp_path)) - before if not path.startswith("home/")}
    assert new <= {"here/sweep.yaml", "here/wandb.json", *allowed}


def test_a_run_without_any_safe_name_is_left_out_and_said(server: Server, tmp_path: Path) -> None:
    """One that can't be kept costs itself alone."""
    sweep = put_sweep(server)
    put_run(server, sweep, fabricate_run(tmp_path / "there", "a"))
    odd = put_run(server, sweep, None, "failed")
    with server.store.lock:
        del server.store.runs[PROJECT, odd.id]
        odd.id = ".."
        server.store.runs[PROJECT, odd.id] = odd
    result = pulled(sweep, tmp_path / "here")
    assert (result.runs, result.fetched, len(result.faults)) == (2, 1, 1)
    assert "name" in result.faults[0]


def test_files_beyond_all_measure_or_damaged_are_not_taken(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own numbers stand in for a config and a summary that are none."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "a", predictions=[("a.png", "disc", "disc", 0.5)])
    run = put_run(server, sweep, run_dir)
    run.files["run/summary.json"] = b"[1, 2"
    run.files["run/config.yaml"] = b"a: ["
    monkeypatch.setitem(client.MAX_BYTES, keys.PREDICTIONS, 10)
    counted = requests(server)
    pulled(sweep, tmp_path / "here")
    assert (requests(server) - counted)["download"] == 3  # not the predictions
    assert documents.read_json(tmp_path / "here/a" / keys.SUMMARY) == documents.read_json(run_dir / keys.SUMMARY)
    assert files.read_config(tmp_path / "here/a") == config_as_fetched(run_dir)
    assert fetched_note(tmp_path / "here", run)["missing"] == ["predictions.csv", "config.yaml", "summary.json"]


@pytest.mark.parametrize(("status", "only"), [(429, "RunFiles"), (500, "download")])
def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path, status: int, only: str) -> None:
    """A refusal costs time, no run."""
    sweep = put_sweep(server)
    put_run(server, sweep, fabricate_run(tmp_path / "there", "a"))
    failed = server.failed[only]
    server.fail(status, times=1, only=only)
    assert pulled(sweep, tmp_path / "here") == SyncResult(1, 1, ())
    assert server.failed[only] == failed + 1


def test_a_server_that_is_away_for_longer_than_the_client_waits(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gives up, the pull does not."""
    sweep = put_sweep(server)
    put_run(server, sweep, fabricate_run(tmp_path / "there", "a"))
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 1)
    connection = client.connect()
    server.fail(500, only="GetSweep")
    back = threading.Timer(1.2, server.heal)
    back.start()
    counted = requests(server)
    assert sync_runs(connection, SweepAddress(ENTITY, PROJECT, sweep), tmp_path / "here", no_progress) == SyncResult(
        1, 1, ()
    )
    back.join()
    assert (requests(server) - counted)["GetSweepLegacy"] or (requests(server) - counted)["GetSweep"] > 1


def test_a_server_that_goes_away_for_good_ends_the_pull(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched before stays; the others do not wait one after another."""
    sweep = put_sweep(server)
    for number in range(40):
        put_run(server, sweep, fabricate_run(tmp_path / "there", f"run-{number}"))
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 1)
    connection = replace(client.connect(), max_tries=1)
    asked = server.counts["RunFiles"]

    def cut_off(what: Iterable[Any], _: int) -> Iterable[Any]:
        for number, item in enumerate(what):
            if number == 5:
                server.fail(503, only="RunFiles")
            yield item

    try:
        with pytest.raises(errors.FetchError, match=re.escape(f"W&B ({server.url}) does not answer")):
            sync_runs(connection, SweepAddress(ENTITY, PROJECT, sweep), tmp_path / "here", cut_off)
    finally:
        server.heal()
    assert 5 <= len(files.find_runs(tmp_path / "here")) < 40
    assert server.counts["RunFiles"] - asked < 40
    assert pulled(sweep, tmp_path / "here").runs == len(files.find_runs(tmp_path / "here")) == 40


def test_an_interrupt_does_not_wait_for_the_limit(server: Server, tmp_path: Path) -> None:
    """Threads that wait for their turn give up with the command."""
    sweep = put_sweep(server)
    for number in range(12):
        put_run(server, sweep, fabricate_run(tmp_path / "there", f"run-{number}"))
    connection = replace(client.connect(), limiter=Limiter(a_minute=1, burst=5))

    def cut_off(what: Iterable[Any], _: int) -> Iterable[Any]:
        yield next(iter(what))
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sync_runs(connection, SweepAddress(ENTITY, PROJECT, sweep), tmp_path / "here", cut_off)
    assert time.monotonic() - began < 50
    assert len(files.find_runs(tmp_path / "here")) < 12


def test_a_file_that_is_not_to_be_had_costs_one_run(server: Server, tmp_path: Path) -> None:
    """The others arrive; the fault is named, and the next pull tries again."""
    sweep = put_sweep(server)
    for name in ("a", "b"):
        put_run(server, sweep, fabricate_run(tmp_path / "there", name))
    server.fail(403, times=1, only="download")
    result = pulled(sweep, tmp_path / "here")
    assert (result.fetched, len(result.faults)) == (1, 1)
    assert f"{ENTITY}/{PROJECT}/" in result.faults[0]
    assert len(files.find_runs(tmp_path / "here")) == 1
    assert pulled(sweep, tmp_path / "here") == SyncResult(2, 1, ())


@pytest.mark.parametrize("times", [1, 9])
def test_a_file_that_is_replaced_while_it_is_fetched_costs_its_run_at_most(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """It is listed again at the next try; if that is of no use, the others arrive, and the next pull brings it."""
    from wandb.apis.public.files import File

    sweep = put_sweep(server)
    for name in ("a", "b"):
        put_run(server, sweep, fabricate_run(tmp_path / "there", name))
    changing, download, changes = server.runs(sweep=sweep)[0], File.download, []

    def late(file: Any, *arguments: Any, **options: Any) -> Any:
        if file.name == "run/summary.json" and changing.id in file.url and len(changes) < times:
            changes.append(file.name)
            changing.files[file.name] += b"\n"
        return download(file, *arguments, **options)

    monkeypatch.setattr(File, "download", late)
    connection = replace(client.connect(), max_tries=2)
    result = sync_runs(connection, SweepAddress(ENTITY, PROJECT, sweep), tmp_path / "here", no_progress)
    if times == 1:
        assert result == SyncResult(2, 2, ())
    else:
        assert (result.runs, result.fetched, len(changes)) == (2, 1, 2)
        (fault,) = result.faults
        assert fault.startswith(f"{ENTITY}/{PROJECT}/{changing.id}: ")
        assert "run/summary.json changes while it is fetched" in fault
        monkeypatch.setattr(File, "download", download)
        assert pulled(sweep, tmp_path / "here") == SyncResult(2, 1, ())


def test_a_sweep_that_is_not_there_is_an_error(server: Server, tmp_path: Path) -> None:
    """The message names sweep and server, and no folder is made."""
    with pytest.raises(errors.FetchError, match=rf"{server.url}.*no sweep {ENTITY}/{PROJECT}/zzzzzzzz"):
        pulled("zzzzzzzz", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_folder_of_another_sweep_is_not_mixed(server: Server, tmp_path: Path) -> None:
    """Runs of two sweeps in one folder would pass for one comparison."""
    one, other = put_sweep(server), put_sweep(server)
    for sweep in (one, other):
        put_run(server, sweep, fabricate_run(tmp_path / sweep, "a"))
    pulled(one, tmp_path / "here")
    (tmp_path / "here" / keys.SWEEP).unlink()
    before = contents(tmp_path / "here")
    with pytest.raises(InputError, match=f"another W&B sweep, {ENTITY}/{PROJECT}/{one}"):
        pulled(other, tmp_path / "here")
    assert contents(tmp_path / "here") == before

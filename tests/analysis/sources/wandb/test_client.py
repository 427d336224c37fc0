"""A sweep on a W&B server becomes run directories: all of it, once, and nothing that was here is harmed."""

import json
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
import yaml

from analysis.figures.specs import GRIDS
from analysis.pipeline import analyze_sweep
from analysis.sources.run_directories import read_sweep
from analysis.sources.wandb import client, store
from analysis.sources.wandb.sync import SyncResult
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.tables import write_table
from finetune.tracking.sweep_address import SweepAddress
from tests.analysis.sources.wandb.pulling import as_fetched, config_as_fetched, contents, pulled, requests
from tests.online.runs_on_server import FILES, PROJECT, SWEPT, add_row, fetched_note, put_files, put_run, put_sweep
from tests.support.fabricate import fabricate_pictures, fabricate_run
from tests.support.wandb_server.server import Server
from tests.support.wandb_server.store import ENTITY


def test_finished_runs_arrive_as_they_are(server: Server, tmp_path: Path) -> None:
    """Every file is the one of the machine that ran it, but for where its images were; beside them is the sweep's."""
    pictures = fabricate_pictures(tmp_path / "data", each=2)
    answers = [(path, name, "disc", 0.9) for path, name in pictures]
    sweep = put_sweep(server)
    for seed in range(2):
        run_dir = fabricate_run(
            tmp_path / "there", f"head-{seed}", seed=seed, predictions=answers, pictures=tmp_path / "data"
        )
        write_table(run_dir / keys.SPLITS, ["path", "label", "split"], [["a.png", "disc", "test"]])
        (run_dir / keys.LOG).write_text("epoch 1\n")
        files.write_state(run_dir, "finished")
        run = put_run(server, sweep, run_dir, swept={"seed": seed})
        run.files |= {f"media/images/{number:02}.jpg": b"x" for number in range(80)}
    here, before = tmp_path / "runs" / sweep, requests(server)
    assert pulled(sweep, here) == SyncResult(2, 2, ())
    assert (requests(server) - before)["RunFiles"] == 2  # however many files there are
    there = as_fetched(contents(tmp_path / "there"))
    arrived = contents(here)
    assert {name: arrived[name] for name in there} == there
    assert len(there) == 2 * (len(FILES) + 1)
    others = {name for name in arrived if name not in there}
    assert others == {
        "sweep.yaml",
        "wandb.json",
        *(
            f"{files.read_config(tmp_path / 'there' / name)['provenance']['run_id']}/{note}"
            for name, note in notes(here)
        ),
    }
    assert yaml.safe_load(arrived["sweep.yaml"])["method"] == "grid"
    told = json.loads(arrived["wandb.json"])
    assert (told["entity"], told["project"], told["sweep"]) == (ENTITY, PROJECT, sweep)
    assert told["url"] == f"{server.url}/{ENTITY}/{PROJECT}/sweeps/{sweep}"
    for run in server.runs(sweep=sweep):
        note = fetched_note(here, run)
        assert (note["path"], note["state"], note["complete"]) == (f"{ENTITY}/{PROJECT}/{run.id}", "finished", True)
    assert not server.errors


def notes(folder: Path) -> list[tuple[str, str]]:
    """Return (run directory, file) of every note on a W&B run."""
    return [(path.parent.name, path.name) for path in folder.glob("*/wandb-*.json")]


def test_a_second_pull_asks_for_the_list_alone(server: Server, tmp_path: Path) -> None:
    """Of 300 finished runs the 50 that are not here cost a request and their files each, once; the others nothing."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "head", predictions=[("a.png", "disc", "disc", 0.9)])
    first = put_run(server, sweep, run_dir)
    here = tmp_path / "here"
    for number in range(1, 300):
        name = f"head-{number:03}"
        config = {**first.raw_config, "provenance": {"value": {"run_id": name}}}
        server.store.add_run(replace(first, id=f"{number:08}", raw_config=config))
        if number >= 50:
            (here / name).mkdir(parents=True)
            for file in (keys.CONFIG, keys.SUMMARY):
                (here / name / file).write_bytes((run_dir / file).read_bytes())
    before = requests(server)
    assert pulled(sweep, here) == SyncResult(300, 50, ())
    asked = requests(server) - before
    assert (asked["Runs"], asked["RunFiles"], asked["download"], asked["HistoryPage"]) == (3, 50, 200, 0)
    before, content = requests(server), contents(here)
    assert pulled(sweep, here) == SyncResult(300, 0, ())
    assert requests(server) - before == Counter({"Runs": 3, "GetDefaultEntity": 1})  # the client asks the latter
    assert contents(here) == content


def test_a_password_in_the_server_s_address_stays_with_the_client(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told and kept of the address is without it, as is the sweep; the address still leads to its page."""
    wandb.teardown()  # the client asks for its address once
    monkeypatch.setenv("WANDB_BASE_URL", server.url.replace("://", "://me:pr0xy-passw0rd@"))
    sweep = put_sweep(server, spec={**SWEPT, "command": ["env", "TOKEN=hf_AbCdEfGhIjKlMnOpQrStUvWxYz01", "${program}"]})
    put_run(server, sweep, fabricate_run(tmp_path / "there", "a"))
    assert pulled(sweep, tmp_path / "here") == SyncResult(1, 1, ())
    assert "- TOKEN=***" in (tmp_path / "here" / keys.SWEEP).read_text()
    connection = client.connect()
    assert (connection.url, connection.page) == (server.url, server.url)
    assert "pr0xy-passw0rd" in wandb.setup().settings.base_url
    wandb.teardown()
    assert documents.read_json(tmp_path / "here" / keys.REMOTE)["url"].startswith(f"{server.url}/{ENTITY}/")


def test_new_runs_are_added_to_those_that_are_here(server: Server, tmp_path: Path) -> None:
    """A sweep that goes on costs only what is new."""
    sweep = put_sweep(server)
    put_run(server, sweep, fabricate_run(tmp_path / "there", "a"))
    pulled(sweep, tmp_path / "here")
    put_run(server, sweep, fabricate_run(tmp_path / "there", "b"))
    before = requests(server)
    assert pulled(sweep, tmp_path / "here") == SyncResult(2, 1, ())
    assert (requests(server) - before)["RunFiles"] == 1


def test_runs_that_are_not_finished_are_listed_with_their_reason(server: Server, tmp_path: Path) -> None:
    """Failed, killed, crashed, running, and one that never knew its name: a row and a reason each."""
    sweep = put_sweep(server)
    put_run(server, sweep, fabricate_run(tmp_path / "there", "good"))
    bad = fabricate_run(tmp_path / "there", "bad", seed=1, curve=[0.1], state="failed", reason="loss is not finite")
    put_run(server, sweep, bad, "failed", swept={"seed": 1})
    for name, state in (("crash", "crashed"), ("live", "running"), ("odd", "finished")):
        run = put_run(
            server, sweep, fabricate_run(tmp_path / "there", name, curve=[0.1, 0.2], state="unfinished"), state
        )
        run.summary.pop("state", None)
    nameless = put_run(server, sweep, None, "failed", swept={"seed": 7})
    put_run(server, sweep, fabricate_run(tmp_path / "there", "report"), job_type="analysis")
    assert pulled(sweep, tmp_path / "here") == SyncResult(6, 6, ())
    frames = read_sweep(tmp_path / "here")
    assert list(frames.finished["run"]) == ["good"]
    left_out = {run["run"]: (run["state"], run["reason"]) for _, run in frames.left_out.iterrows()}
    assert left_out["bad"] == ("failed", "loss is not finite")
    assert left_out["crash"] == ("killed", "W&B received nothing from it for minutes")
    assert left_out["odd"] == ("failed", "it ended without results")
    assert left_out["live"][0] == "unfinished"
    assert left_out[nameless.id][0] == "damaged"  # it never came to a strategy
    assert (frames.epochs["run"] == "crash").sum() == 2


def test_what_is_not_finished_is_brought_up_to_date(server: Server, tmp_path: Path) -> None:
    """A running run is asked for at each pull, one that has ended only when it has changed, until it is finished."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "a", curve=[0.1, 0.2], state="unfinished")
    run = put_run(server, sweep, run_dir, "running")
    here = tmp_path / "here"
    pulled(sweep, here)
    assert len(files.read_history(here / "a")[0]) == 2
    add_row(run, {"epoch": 3, "val/accuracy": 0.3, "_step": 3})
    assert pulled(sweep, here).fetched == 1
    assert len(files.read_history(here / "a")[0]) == 3
    assert files.status(here / "a")[0] == "unfinished"
    run.state = "crashed"
    assert pulled(sweep, here).fetched == 1
    assert files.status(here / "a")[0] == "killed"
    before = requests(server)
    assert pulled(sweep, here).fetched == 0
    assert requests(server) - before == Counter({"Runs": 1, "GetDefaultEntity": 1})
    done = fabricate_run(tmp_path / "done", "a", curve=[0.1, 0.2, 0.3, 0.4])
    run.summary |= documents.read_json(done / keys.SUMMARY) or {}
    run.state = "running"  # its files are still on their way
    pulled(sweep, here)
    assert files.status(here / "a")[0] == "unfinished"
    put_files(run, done)
    run.state = "finished"
    assert pulled(sweep, here).fetched == 1
    assert len(files.read_history(here / "a")[0]) == 4
    assert files.status(here / "a")[0] == "finished"


def test_a_history_that_is_not_whole_is_read_from_the_server(server: Server, tmp_path: Path) -> None:
    """All rows, not a sample; the later of two for an epoch, tables left out, NaN as JSON has it."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "a", curve=[index / 700 for index in range(1, 701)], epochs=700)
    run = put_run(server, sweep, run_dir, names=(keys.CONFIG, keys.SUMMARY, keys.PREDICTIONS))
    run.files["run/history.jsonl"] = b"".join((run_dir / keys.HISTORY).read_bytes().splitlines(keepends=True)[:5])
    add_row(run, {"epoch": 9.0, "val/accuracy": float("nan"), "train/loss": float("inf"), "_step": 702})
    pulled(sweep, tmp_path / "here")
    rows, torn = files.read_history(tmp_path / "here/a")
    assert (len(rows), torn) == (700, 0)
    assert rows[8] == {"epoch": 9, "train/loss": None, "val/accuracy": None}
    original = files.read_history(run_dir)[0]
    assert rows[:8] + rows[9:] == original[:8] + original[9:]
    assert set(rows[0]) == set(original[0])


def test_a_run_without_files_is_made_from_what_the_server_knows(server: Server, tmp_path: Path) -> None:
    """Its numbers count; what is missing is asked for again once the run has changed, as after a later upload."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(
        tmp_path / "there", "a", strategy="gradual", lr=0.003, predictions=[("a.png", "disc", "disc", 0.5)]
    )
    run = put_run(server, sweep, run_dir, swept={"strategy": "full", "lr": 0.003}, names=(), state="crashed")
    here = tmp_path / "here"
    pulled(sweep, here)
    assert files.read_config(here / "a") == config_as_fetched(run_dir)  # as it resolved, not as it was swept
    assert documents.read_json(here / "a" / keys.SUMMARY) == documents.read_json(run_dir / keys.SUMMARY)
    assert files.read_history(here / "a") == files.read_history(run_dir)
    note = fetched_note(here, run)
    assert (note["complete"], note["missing"]) == (False, ["predictions.csv", "config.yaml", "summary.json"])
    assert pulled(sweep, here).fetched == 0
    put_files(run, run_dir)
    run.state = "finished"
    assert pulled(sweep, here).fetched == 1
    assert fetched_note(here, run)["complete"]
    assert (here / "a" / keys.PREDICTIONS).read_bytes() == (run_dir / keys.PREDICTIONS).read_bytes()


def test_points_that_are_one_run_share_a_directory(server: Server, tmp_path: Path) -> None:
    """Of two W&B runs with one name the finished one counts, whichever was first."""
    sweep = put_sweep(server)
    bad = fabricate_run(tmp_path / "bad", "a", state="failed", reason="no")
    put_run(server, sweep, bad, "failed")
    put_run(server, sweep, fabricate_run(tmp_path / "good", "a"))
    put_run(server, sweep, bad, "failed")
    assert pulled(sweep, tmp_path / "here") == SyncResult(3, 1, ())
    assert [path.name for path in files.find_runs(tmp_path / "here")] == ["a"]
    assert files.status(tmp_path / "here/a")[0] == "finished"


def test_a_run_gets_its_name_when_it_knows_it(server: Server, tmp_path: Path) -> None:
    """First seen before it had a config, it does not stay behind as another run."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "a")
    run = put_run(server, sweep, None, "running", swept={"seed": 0})
    pulled(sweep, tmp_path / "here")
    named = put_run(server, sweep, run_dir)
    run.raw_config, run.summary, run.files, run.state = named.raw_config, named.summary, named.files, "finished"
    server.delete_run(named.id)
    pulled(sweep, tmp_path / "here")
    assert [path.name for path in files.find_runs(tmp_path / "here")] == ["a"]


@pytest.mark.parametrize("has_twin", [False, True])
def test_what_is_left_of_a_run_that_got_its_name_too_late_says_so(
    server: Server, tmp_path: Path, has_twin: bool
) -> None:
    """Where the name's directory is taken, by an earlier run or a twin, the old one does not stay running for ever."""
    sweep = put_sweep(server)
    run = put_run(server, sweep, fabricate_run(tmp_path / "early", "a", curve=[0.1], state="unfinished"), "running")
    provenance = run.raw_config.pop("provenance")
    here = tmp_path / "here"
    pulled(sweep, here)
    assert files.status(here / run.id)[0] == "unfinished"
    run_dir = fabricate_run(tmp_path / "there", "a")
    if has_twin:
        put_run(server, sweep, run_dir)
        run.state = "crashed"
    else:
        fabricate_run(here, "a", curve=[0.2], state="unfinished")
        put_files(run, run_dir)
        run.summary, run.state = {**run.summary, **(documents.read_json(run_dir / keys.SUMMARY) or {})}, "finished"
    run.raw_config["provenance"] = provenance
    pulled(sweep, here)
    assert files.status(here / "a")[0] == "finished"
    assert files.status(here / run.id) == ("killed", "its results are in a")
    before = contents(here)
    assert pulled(sweep, here).fetched == 0
    assert contents(here) == before


@pytest.mark.parametrize("heartbeat", ["soon", [1], {}, None])
def test_a_damaged_note_does_not_end_the_pull(server: Server, tmp_path: Path, heartbeat: object) -> None:
    """The run is asked for once more."""
    sweep = put_sweep(server)
    run = put_run(server, sweep, fabricate_run(tmp_path / "there", "a", curve=[0.1], state="failed"), "failed")
    pulled(sweep, tmp_path / "here")
    file = tmp_path / f"here/a/wandb-{run.id}.json"
    documents.write_json(file, {**json.loads(file.read_text()), "heartbeat": heartbeat})
    assert pulled(sweep, tmp_path / "here") == SyncResult(1, 1, ())
    assert pulled(sweep, tmp_path / "here") == SyncResult(1, 0, ())


@pytest.mark.parametrize("state", ["finished", "alive", "begun"])
def test_what_is_here_is_not_touched(server: Server, tmp_path: Path, state: str) -> None:
    """A run that is finished here, that a live process runs, or that was begun here and is not done elsewhere."""
    sweep = put_sweep(server)
    here = tmp_path / "here"
    mine = fabricate_run(here, "a", curve=[0.5], state="finished" if state == "finished" else "unfinished")
    (mine / "best.pt").write_bytes(b"weights")
    if state != "finished":
        (mine / "claim-1.json").write_text(json.dumps({"host": "other", "pid": 1, "released": True}))
        (mine / "claim-2.json").write_text(json.dumps({"host": "other", "pid": 1, "released": False}))
    if state == "begun":
        os.utime(mine / "claim-2.json", (time.time() - 200, time.time() - 200))
    before = contents(mine)
    if state == "begun":
        put_run(server, sweep, fabricate_run(tmp_path / "there", "a", state="failed", reason="no"), "failed")
    else:
        put_run(server, sweep, fabricate_run(tmp_path / "there", "a"))
    counted = requests(server)
    assert pulled(sweep, here).fetched == 0
    assert contents(mine) == before
    assert not (requests(server) - counted)["RunFiles"]


@pytest.mark.parametrize("is_released", [True, False])
def test_a_run_that_died_here_and_was_done_elsewhere_is_fetched(
    server: Server, tmp_path: Path, is_released: bool
) -> None:
    """Nothing that lay there is deleted, and what others noted of the W&B run stays."""
    sweep = put_sweep(server)
    mine = fabricate_run(tmp_path / "here", "a", curve=[0.5], state="unfinished")
    (mine / "claim-1.json").write_text(json.dumps({"host": "other", "pid": 1, "released": is_released}))
    if not is_released:
        os.utime(mine / "claim-1.json", (time.time() - 200, time.time() - 200))
    (mine / "last.pt").write_bytes(b"weights")
    run = put_run(server, sweep, fabricate_run(tmp_path / "there", "a", predictions=[("a.png", "disc", "disc", 0.9)]))
    documents.write_json(mine / f"wandb-{run.id}.json", {"url": "x", "rows": 1, "state": "running"})
    before = set(contents(mine))
    assert pulled(sweep, tmp_path / "here").fetched == 1
    assert before < set(contents(mine))
    assert (mine / keys.HISTORY).read_bytes() == (tmp_path / "there/a" / keys.HISTORY).read_bytes()
    note = fetched_note(tmp_path / "here", run)
    assert (note["url"], note["rows"], note["state"], note["complete"]) == ("x", 1, "finished", True)


def grid_notes(folder: Path) -> str:
    """Return the notes of the prediction grid of these runs."""
    spec = GRIDS["prediction_grid"](analyze_sweep(read_sweep(folder)))
    assert spec is not None
    return " ".join(spec.notes)


@pytest.mark.parametrize("way", ["as it is", "where a run was begun", "by the server's list", "by another key"])
def test_a_fetched_run_shows_no_picture_of_this_machine(server: Server, tmp_path: Path, way: str) -> None:
    """Whatever folder its config names; a run that was made here shows what is in its data folder."""
    private = tmp_path / "private"
    answers = [(path, name, "disc", 0.9) for path, name in fabricate_pictures(private, each=1)]
    own = {"data_root": None} if way == "by another key" else {"data_root": str(private)}
    run_dir = fabricate_run(tmp_path / "there", "a", predictions=answers, provenance=own)
    if way == "by another key":
        with (run_dir / keys.CONFIG).open("a") as file:
            file.write(f"provenance/data_root: {private}\n")
    sweep = put_sweep(server)
    run = put_run(server, sweep, run_dir)
    here = tmp_path / "here"
    if way == "where a run was begun":
        mine = fabricate_run(here, "a", curve=[0.5], state="unfinished", provenance=own)
        (mine / "claim-1.json").write_text(json.dumps({"host": "other", "pid": 1, "released": True}))
    if way == "by the server's list":
        del run.files[f"run/{keys.CONFIG}"]
    assert pulled(sweep, here).fetched == 1
    assert "3 of the 3 images of the prediction grid are missing" in grid_notes(here)
    assert "data_root" not in files.read_config(here / "a")["provenance"]
    if way == "as it is":
        assert grid_notes(tmp_path / "there") == ""


def test_the_claim_of_a_live_process_is_seen_before_a_file_is_moved(server: Server, tmp_path: Path) -> None:
    """A run that is started here while it is fetched is left to the process that runs it."""
    place, mine = tmp_path / "place", fabricate_run(tmp_path / "here", "a", state="unfinished")
    fabricate_run(place, "a")
    (mine / "claim-1.json").write_text(json.dumps({"host": "other", "pid": 1, "released": False}))
    sweep = put_sweep(server)
    put_run(server, sweep, place / "a")
    (run,) = client.list_runs(client.connect(), SweepAddress(ENTITY, PROJECT, sweep))
    before = contents(mine)
    assert not store.install(run, place / "a", mine, [])
    assert contents(mine) == before


def test_what_the_client_sends_comes_back(server: Server, tmp_path: Path) -> None:
    """A run sent by W&B's own client, files and rows and a table's row, is the run directory again."""
    sweep = put_sweep(server)
    run_dir = fabricate_run(tmp_path / "there", "a", curve=[0.25, 1.0], predictions=[("a.png", "disc", "disc", 0.5)])
    config = files.read_config(run_dir)
    settings = wandb.Settings(sweep_id=sweep, silent=True, console="off")
    run = wandb.init(entity=ENTITY, project=PROJECT, config=config, job_type="train", settings=settings)
    for row in files.read_history(run_dir)[0]:
        run.log({**row, "best/val_accuracy": row["val/accuracy"]}, step=row["epoch"])
    run.log({"test/answers": "a table"})
    run.summary.update(documents.read_json(run_dir / keys.SUMMARY))
    (tmp_path / "link").mkdir()
    (tmp_path / "link/run").symlink_to(run_dir, target_is_directory=True)
    for name in (keys.CONFIG, keys.SUMMARY, keys.PREDICTIONS):  # the history is read from the rows
        run.save(str(tmp_path / "link/run" / name), base_path=tmp_path / "link", policy="now")
    run.finish()
    assert pulled(sweep, tmp_path / "here") == SyncResult(1, 1, ())
    arrived = contents(tmp_path / "here/a")
    there = as_fetched(contents(run_dir))
    for name in (keys.CONFIG, keys.SUMMARY, keys.PREDICTIONS):
        assert arrived[name] == there[name], name
    assert files.read_history(tmp_path / "here/a") == files.read_history(run_dir)
    assert fetched_note(tmp_path / "here", server.run(run.id))["complete"]

"""The loopback W&B backend, seen through the real client and its API in processes of their own."""

import gzip
import http.client
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.online.real_client import python, server, steps
from tests.online.runs_on_server import PROJECT, put_sweep
from tests.support.wandb_server.search import heartbeat
from tests.support.wandb_server.server import API_KEY, Server, serve
from tests.support.wandb_server.store import ENTITY, Agent

__all__ = ["python", "server"]  # fixtures

GRID = {"method": "grid", "program": "loop.py", "parameters": {"lr": {"values": [1, 2]}, "b": {"value": 7}}}


def ask(server: Server, query: str, key: str = API_KEY, **variables: Any) -> tuple[int, dict[str, Any]]:
    """Send a GraphQL document and return status and answer."""
    request = urllib.request.Request(
        f"{server.url}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Authorization": "Basic " + b64encode(f"api:{key}".encode()).decode()},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_a_run_arrives_whole_and_is_read_back(server: Server, python: Callable[..., Any]) -> None:
    told = python("""
import json, wandb
with wandb.init(project="finetune-sweeps", id="whole001", name="first", config={"lr": 0.1, "deep": {"a": [1]}},
                group="g", job_type="j", tags=["a", "b"], notes="n") as run:
    for i in range(700):
        run.log({"loss": i / 2} if i % 2 else {"loss": i / 2, "odd": float("nan")})
    print("hello")
    run.summary["best"] = 3
api = wandb.Api()
run = api.run("finetune-sweeps/whole001")
rows = list(run.scan_history(page_size=300))
print(json.dumps({
    "losses": [row["loss"] for row in rows], "odd": rows[0]["odd"], "config": run.config, "state": run.state,
    "keyed": len(list(run.scan_history(keys=["odd"]))), "sampled": len(run.history(pandas=False)),
    "files": [file.name for file in run.files()], "name": run.name, "console": [l.content for l in run.console_logs()],
    "config.yaml": run.file("config.yaml").download("down").read(),
}))
""")
    run = server.run("whole001")
    assert (run.state, run.exit_code, run.display_name, run.notes) == ("finished", 0, "first", "n")
    assert (run.group, run.job_type, run.tags) == ("g", "j", ["a", "b"])
    assert run.config == {"lr": 0.1, "deep": {"a": [1]}}
    assert steps(run) == list(range(700))
    assert run.summary["best"] == 3
    assert "hello" in run.output
    assert told["losses"] == [i / 2 for i in range(700)]
    assert (told["odd"], told["keyed"], told["sampled"]) == ("NaN", 350, 500)
    assert (told["config"], told["state"], told["name"]) == (run.config, "finished", "first")
    assert sorted(told["files"]) == sorted(run.files)
    assert told["config.yaml"].encode() == run.files["config.yaml"]
    assert "hello" in told["console"]
    counts = server.counts_of("whole001")
    assert counts["UpsertBucket"] >= 1
    assert counts["file_stream"] >= 1
    assert counts["upload"] == len(run.files)


def test_tables_pictures_plots_and_artifacts(server: Server, python: Callable[..., Any]) -> None:
    told = python("""
import json, pathlib, numpy, wandb
pathlib.Path("model.txt").write_text("weights")
with wandb.init(project="finetune-sweeps", id="media001") as run:
    table = wandb.Table(columns=["number", "picture"])
    for i in range(2):
        table.add_data(i, wandb.Image(numpy.full((4, 4, 3), 40 * i, dtype="uint8")))
    run.log({"predictions": table})
    run.log({"confusion": wandb.plot.confusion_matrix(y_true=[0, 1, 1], preds=[0, 1, 0], class_names=["x", "y"])})
    for text in ("weights", "weights", "more weights"):
        pathlib.Path("model.txt").write_text(text)
        artifact = wandb.Artifact("model", type="model", metadata={"text": text})
        artifact.add_file("model.txt")
        run.log_artifact(artifact, aliases=["best"]).wait()
api = wandb.Api()
run = api.run("finetune-sweeps/media001")
logged = {item.name: item for item in run.logged_artifacts()}
table = logged["run-media001-predictions:v0"].get("predictions")
path = api.artifact("tester/finetune-sweeps/model:best").download("down")
print(json.dumps({
    "logged": sorted(logged), "numbers": table.get_column("number"),
    "sizes": [i.image.size for i in table.get_column("picture")],
    "file": pathlib.Path(path, "model.txt").read_text(), "first": logged["model:v0"].metadata,
    "missing": api.artifact_exists("tester/finetune-sweeps/nothing:v0"),
}))
""")
    assert told["logged"] == [
        "model:v0",
        "model:v1",
        "run-media001-confusion_table:v0",
        "run-media001-predictions:v0",
    ]
    assert (told["numbers"], told["sizes"]) == ([0, 1], [[4, 4], [4, 4]])
    assert (told["file"], told["first"], told["missing"]) == ("more weights", {"text": "weights"}, False)
    found = {item.name: item for item in server.artifacts("media001")}
    assert sorted(found) == told["logged"]
    assert found["model:v1"].files == {"model.txt": b"more weights"}
    assert found["run-media001-predictions:v0"].type == "run_table"
    assert sum(name.endswith(".png") for name in found["run-media001-predictions:v0"].files) == 2
    assert "confusion" in json.dumps(server.run("media001").raw_config)


def test_resumed_and_synced_runs(server: Server, python: Callable[..., Any]) -> None:
    sweep = put_sweep(server, spec=GRID)
    told = python("""
import json, os, subprocess, sys, wandb
told = []
for _ in range(2):
    with wandb.init(project="finetune-sweeps", id="again001", resume="allow", config={"lr": 1}) as run:
        told.append([run.starting_step, run.resumed, dict(run.config)])
        for i in range(3):
            run.log({"loss": i})
        run.summary[f"from {run.starting_step}"] = True
wandb.teardown()
with wandb.init(project="finetune-sweeps", id="late0001", mode="offline", config={"lr": 2, "b": 7}, group="g",
                settings=wandb.Settings(sweep_id=os.environ["SWEEP"])) as run:
    for i in range(3):
        run.log({"loss": i})
folder = os.path.dirname(run.dir)
wandb.teardown()
subprocess.run([sys.executable, "-m", "wandb", "sync", "--yes", folder], check=True, stdout=sys.stderr)
print(json.dumps(told))
""", SWEEP=sweep, WANDB__FILE_STREAM_NO_GZIP="false")  # fmt: skip
    assert told == [[0, False, {"lr": 1}], [3, True, {"lr": 1}]]
    again = server.run("again001")
    assert (again.state, steps(again)) == ("finished", [0, 1, 2, 3, 4, 5])
    assert again.summary["from 0"] is again.summary["from 3"] is True
    late = server.run("late0001")
    assert (late.state, steps(late), late.sweep, late.group) == ("finished", [0, 1, 2], sweep, "g")
    assert [run.id for run in server.runs(sweep=sweep)] == ["late0001"]
    agent = Agent("an agent", sweep, "here")
    with server.store.lock:
        (command,) = heartbeat(server.store, agent, set())
    assert command["args"]["lr"] == {"value": 1}, "the synced run has used up its point"


def test_faults_lose_nothing(server: Server, python: Callable[..., Any]) -> None:
    for what in ("UpsertBucket", "CreateRunFiles", "upload"):
        server.fail(500, times=1, only=what)
    server.fail(429, times=1, only="file_stream")
    server.fail(503, share=0.1)
    down, up = threading.Timer(2, server.go_down), threading.Timer(3.2, server.come_back)
    down.start()
    up.start()
    try:
        python("""
import time, wandb
with wandb.init(project="finetune-sweeps", id="fault001") as run:
    for i in range(30):
        run.log({"loss": i})
        time.sleep(0.1)
print(0)
""")
    finally:
        server.heal()
        up.join()
    run = server.run("fault001")
    assert (run.state, [row["loss"] for row in run.history]) == ("finished", list(range(30)))
    assert {"config.yaml", "wandb-metadata.json", "wandb-summary.json"} <= set(run.files)
    assert {"UpsertBucket", "CreateRunFiles", "upload", "file_stream"} <= set(server.failed)


def test_what_is_not_known_is_named_and_reports_are_kept() -> None:
    with serve() as server:
        status, answer = ask(server, "query Wrong { viewer { shoeSize } }")
        assert status == 200
        assert answer["errors"] == [{"message": 'Wrong: Cannot query field "shoeSize" on type "User".'}]
        assert server.errors == [answer["errors"][0]["message"]]
        assert ask(server, "query Viewer { viewer { id } }", key="x" * 40)[0] == 401
        save = """mutation upsertView($spec: String!, $project: String) {
            upsertView(input: {type: "runs", name: "n", displayName: "Title", projectName: $project, spec: $spec}) {
                view { id project { name } spec } inserted } }"""
        spec = json.dumps({"blocks": [{"type": "paragraph"}]})
        assert "needs one" in ask(server, save, spec=spec, project=PROJECT)[1]["errors"][0]["message"]
        ask(server, 'mutation P { upsertModel(input: {name: "finetune-sweeps"}) { inserted } }')
        view = ask(server, save, spec=spec, project=PROJECT)[1]["data"]["upsertView"]["view"]
        assert view["project"] == {"name": PROJECT}
        load = "query SpecificReport($id: ID!) { view(id: $id) { displayName spec } }"
        assert ask(server, load, id=view["id"])[1]["data"]["view"] == {"displayName": "Title", "spec": spec}
        (kept,) = server.views()
        assert (kept["type"], kept["displayName"], kept["project"]) == ("runs", "Title", PROJECT)
        assert kept["spec"] == {"blocks": [{"type": "paragraph"}]}


def test_a_chunk_sent_twice_is_there_once_however_it_comes(server: Server) -> None:
    ask(server, 'mutation U { upsertBucket(input: {name: "stream01", modelName: "finetune-sweeps"}) { inserted } }')
    address = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address)
    for offset, losses in ((0, ["1", "NaN"]), (1, ["-Infinity", "3"]), (1, ["-Infinity", "3"])):
        lines = [f'{{"loss": {loss}, "_step": {offset + i}}}' for i, loss in enumerate(losses)]
        body = json.dumps({"files": {"wandb-history.jsonl": {"offset": offset, "content": lines}}}).encode()
        packed = gzip.compress(body)
        connection.request(
            "POST",
            f"/files/{ENTITY}/{PROJECT}/stream01/file_stream",
            iter([packed[:10], packed[10:]]),
            {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"},
            encode_chunked=True,
        )
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["stopped"]) == (200, False)
    connection.close()
    assert [row["loss"] for row in server.run("stream01").history] == [1, float("-inf"), 3]
    query = 'query H { project(name: "finetune-sweeps") { run(name: "stream01") { history historyLineCount } } }'
    told = ask(server, query)[1]["data"]["project"]["run"]
    assert [json.loads(row)["loss"] for row in told["history"]] == [1, "-Infinity", 3]
    assert told["historyLineCount"] == 3


def test_the_environment_leads_nowhere_else(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.setenv("MPLCONFIGDIR", "/somewhere")
    environment = server.environment(tmp_path)
    assert "WANDB_PROJECT" not in environment
    assert "WANDB_MODE" not in environment
    assert environment["WANDB_BASE_URL"] == server.url
    assert len(environment["WANDB_API_KEY"]) >= 40
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["MPLCONFIGDIR"] == "/somewhere"
    inside = {name for name, value in environment.items() if value.startswith(str(tmp_path))}
    assert {"HOME", "NETRC", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"} <= inside


def test_a_sweep_that_makes_no_sense_is_refused(server: Server) -> None:
    query = "mutation UpsertSweep { upsertSweep(input: {config: $c}) { sweep { name } configValidationWarnings } }"
    for config in ("just text", "parameters: {}", "method: grid\nparameters: {lr: {values: []}}"):
        status, answer = ask(server, query, c=config)
        assert (status, answer["data"]) == (200, None)
        assert "UpsertSweep: " in answer["errors"][0]["message"]
    odd = ask(server, query, c="method: grid\nfoo: 1\nparameters: {lr: {values: [1]}}")[1]["data"]["upsertSweep"]
    assert "foo" in odd["configValidationWarnings"][0]

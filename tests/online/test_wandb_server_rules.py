"""The rules of the loopback W&B backend, without a client: who gets which run, what ends how, queries and lists."""

import json
from typing import Any

import pytest

from tests.support.wandb_server.graphql import execute
from tests.support.wandb_server.listing import connection, matches, order_by
from tests.support.wandb_server.search import heartbeat, refresh, stop_early
from tests.support.wandb_server.store import Agent, Run, Store, Sweep

PROJECT = "finetune-sweeps"
GRID = {"method": "grid", "program": "loop.py", "parameters": {"lr": {"values": [1, 2]}, "b": {"value": 7}}}


def swept(**more: Any) -> tuple[Store, Sweep, Agent]:
    """Return a store with one sweep and one agent."""
    store = Store()
    sweep = Sweep("sweep001", PROJECT, "", {**GRID, **more})
    store.project(PROJECT)
    store.sweeps[sweep.id] = sweep
    agent = Agent("agent001", sweep.id, "here")
    return store, sweep, agent


def start(store: Store, agent: Agent) -> Run:
    """Let the agent take a run, which then runs."""
    (command,) = heartbeat(store, agent, set())
    run = store.find_run(command["run_id"])
    run.state = "running"
    return run


def test_an_agent_gets_one_run_at_a_time_and_deleting_frees_the_point() -> None:
    store, sweep, agent = swept()
    (command,) = heartbeat(store, agent, set())
    assert (command["type"], command["program"]) == ("run", "loop.py")
    assert list(command["args"].items()) == [("b", {"value": 7}), ("lr", {"value": 1})]
    first = store.find_run(command["run_id"])
    assert heartbeat(store, agent, {first.id}) == []
    first.state = "failed"
    second = start(store, agent)
    assert heartbeat(store, agent, set()) == [], "the grid is used up, but a run is alive"
    second.state = "finished"
    assert heartbeat(store, agent, set()) == [{"type": "exit"}]
    assert sweep.state == "FINISHED"
    store.delete_run(first)
    sweep.state = "RUNNING"
    assert start(store, agent).args == first.args


def test_silent_runs_crash_and_preempting_ones_are_handed_out_again() -> None:
    store, sweep, agent = swept()
    first, second = start(store, agent), start(store, agent)
    second.preempting, second.state = True, "preempting"
    first.heartbeat -= 301
    second.heartbeat -= 301
    refresh(store)
    assert (first.state, second.state, sweep.state) == ("crashed", "preempted", "RUNNING")
    (command,) = heartbeat(store, agent, set())
    assert (command["run_id"], command["args"]) == (second.id, second.args)
    assert (second.state, second.preempting) == ("pending", False)


def test_hyperband_stops_a_run_until_it_is_dead() -> None:
    store, sweep, agent = swept(
        metric={"name": "loss", "goal": "minimize"}, early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2}
    )
    sweep.config["parameters"] = {"lr": {"values": [1, 2, 3]}}
    runs = [start(store, agent) for _ in range(3)]
    for run in runs:
        run.lines = {i: {"loss": run.config["lr"]} for i in range(2)}
    stop_early(sweep)
    stop = [{"type": "stop", "run_id": runs[2].id}]
    alive = {run.id for run in runs}
    assert heartbeat(store, agent, alive) == stop
    assert heartbeat(store, agent, alive) == stop
    assert heartbeat(store, agent, alive - {runs[2].id}) == []
    assert [run.state for run in runs] == ["running", "running", "killed"]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_search_without_end_stops_at_its_cap(method: str) -> None:
    store, sweep, agent = swept(method=method, run_cap=2, metric={"name": "loss", "goal": "minimize"})
    sweep.config["parameters"] = {"lr": {"min": 0.1, "max": 0.9}}
    for _ in range(2):
        run = start(store, agent)
        run.state, run.summary = "finished", {"loss": run.config["lr"]}
        assert 0.1 <= run.config["lr"] <= 0.9
        json.dumps(run.args)
    assert heartbeat(store, agent, set()) == [{"type": "exit"}]
    assert sweep.state == "FINISHED"


def test_fragments_aliases_variables_and_directives() -> None:
    query = """#graphql
        query Q($yes: Boolean!, $size: Int = 3) {
            thing(size: $size, tags: ["a", "b"], left: $out) { ...F other: name @skip(if: $yes) ... on Other { never } }
            thing(size: $size) { name }
        }
        fragment F on Thing { alias: name @include(if: $yes) inner { deep } }"""
    node = {"__typename": "Thing", "name": "n", "inner": [{"deep": 1}, {"deep": 2}]}
    seen = []

    def thing(arguments: dict[str, Any]) -> dict[str, Any]:
        seen.append(arguments)
        return node

    data = execute(query, "Q", {"yes": True}, {"query": {"thing": thing}})
    assert data == {"thing": {"alias": "n", "inner": [{"deep": 1}, {"deep": 2}], "name": "n"}}
    assert seen == [{"size": 3, "tags": ["a", "b"]}, {"size": 3}]


def test_filters_orders_and_pages() -> None:
    runs = [
        Run(f"run0000{i}", PROJECT, raw_config={"lr": {"value": i}}, tags=["a"] * (i % 2), created=float(-i))
        for i in range(5)
    ]
    runs[0].summary = {"loss": 1}

    def found(wanted: dict[str, Any]) -> list[int]:
        return [i for i, run in enumerate(runs) if matches(run, wanted)]

    assert found({"tags": "a"}) == [1, 3]
    assert found({"tags": {"$ne": "a"}, "config.lr.value": {"$gte": 2}}) == [2, 4]
    assert found({"$or": [{"name": "run00000"}, {"config.lr": {"$in": [3, 4]}}]}) == [0, 3, 4]
    assert found({"$and": [{"state": "running"}, {"$not": {"config.lr": {"$lt": 4}}}]}) == [4]
    with pytest.raises(KeyError, match="shoe"):
        found({"shoe": 1})
    assert [run.config["lr"] for run in order_by(runs, "+created_at")] == [4, 3, 2, 1, 0]
    assert order_by(runs, "-summary_metrics.loss")[0] is runs[0]
    page = connection(runs, lambda run: run.id, lambda run: run.id, {"first": 2})
    assert [edge["node"] for edge in page["edges"]] == ["run00000", "run00001"]
    after = {"first": 5, "after": page["pageInfo"]["endCursor"]}
    assert page["pageInfo"]["hasNextPage"]
    without = [run for run in runs if run.id != "run00001"]
    rest = connection(without, lambda run: run.id, lambda run: run.id, after)
    assert [edge["node"] for edge in rest["edges"]] == ["run00002", "run00003", "run00004"]
    assert not rest["pageInfo"]["hasNextPage"]

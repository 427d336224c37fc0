"""What each mutation of the client does to the store."""

import json
import time
from collections.abc import Callable
from typing import Any

import yaml

from tests.support.wandb_server import artifacts, search
from tests.support.wandb_server.document import GraphQLError
from tests.support.wandb_server.graphql import NotFound
from tests.support.wandb_server.listing import matches
from tests.support.wandb_server.nodes import project_node, run_file_url, run_node, sweep_node, user_node
from tests.support.wandb_server.store import ENTITY, Agent, Run, Store, Sweep, new_id, stamp, storage_id

Node = dict[str, Any]


def mutations(store: Store) -> Node:
    """Return the root node of mutations."""
    handlers: dict[str, Callable[[Store, Node], Node]] = {
        "upsertModel": upsert_project,
        "upsertBucket": upsert_run,
        "deleteRun": delete_run,
        "stopRun": stop_run,
        "updateRunState": update_run_state,
        "createRunFiles": create_run_files,
        "markRunFilesUploaded": lambda _, __: {"success": True},
        "upsertSweep": upsert_sweep,
        "deleteSweep": delete_sweep,
        "createAgent": create_agent,
        "agentHeartbeat": agent_heartbeat,
        "createArtifact": artifacts.create,
        "createArtifactManifest": artifacts.create_manifest,
        "updateArtifactManifest": artifacts.create_manifest,
        "createArtifactFiles": artifacts.create_files,
        "commitArtifact": artifacts.commit,
        "useArtifact": artifacts.use,
        "updateArtifact": artifacts.update,
        "upsertView": upsert_view,
        "deleteView": delete_view,
    }

    def bind(handler: Callable[[Store, Node], Node]) -> Callable[[Node], Node]:
        return lambda arguments: handler(store, arguments.get("input") or {})

    return {name: bind(handler) for name, handler in handlers.items()}


def _own(given: Node) -> None:
    """Refuse other entities.

    Raises:
        GraphQLError: On a name that is not the one entity's.
    """
    name = given.get("entityName") or given.get("entity_name")
    if name and name != ENTITY:
        raise GraphQLError(f"permission denied: there is no entity {name!r} here, only {ENTITY!r}")


def upsert_project(store: Store, given: Node) -> Node:
    """Make a project."""
    _own(given)
    inserted = given["name"] not in store.projects
    node = project_node(store, store.project(given["name"]))
    return {"project": node, "model": node, "inserted": inserted}


def upsert_run(store: Store, given: Node) -> Node:
    """Make a run, start it again, or change what is said of it."""
    _own(given)
    project = store.project(given.get("modelName")).name
    name = given.get("name") or given.get("id") or new_id()
    run = store.run(project, name)
    inserted = run is None
    if run is None:
        if given.get("id"):
            raise GraphQLError(f"run {given['id']} not found")
        sweep = given.get("sweep")
        if sweep and sweep not in store.sweeps:
            raise GraphQLError(f"Sweep {ENTITY}/{project}/{sweep} not found")
        run = store.add_run(Run(name, project, state=given.get("state") or "running", sweep=sweep or None))
    elif given.get("name"):
        wake(run)
    _change_run(store, run, given)
    search.refresh(store)
    return {"bucket": run_node(store, run), "inserted": inserted}


def wake(run: Run) -> None:
    """Take a run for running, since its client is heard of."""
    run.heartbeat = time.monotonic()
    if run.state in ("running", "preempting") or (run.told_to_stop and run.state == "killed" and run.exit_code is None):
        return  # one that was killed may still say its last words
    if run.exit_code is not None:
        run.should_stop = run.stop_asked = False
    run.state, run.exit_code, run.preempting = "running", None, False


def _change_run(store: Store, run: Run, given: Node) -> None:
    if given.get("config"):
        run.raw_config = json.loads(given["config"])
    if given.get("summaryMetrics"):
        run.summary = json.loads(given["summaryMetrics"])
    names = {"displayName": "display_name", "groupName": "group", "jobType": "job_type"}
    for key in ("displayName", "groupName", "jobType", "tags", "notes", "description"):
        if given.get(key) is not None:
            setattr(run, names.get(key, key), given[key])
    sweep = store.sweeps.get(given.get("sweep") or "")
    if sweep and run.sweep is None:
        run.sweep = sweep.id
        sweep.runs.append(run)


def delete_run(store: Store, given: Node) -> Node:
    """Forget a run; its point of a grid is free again."""
    store.delete_run(_run(store, given["id"]))
    return {"clientMutationId": None}


def _run(store: Store, name: str) -> Run:
    try:
        return store.find_run(name)
    except KeyError as error:
        raise GraphQLError(str(error)) from error


def stop_run(store: Store, given: Node) -> Node:
    """Ask a run to stop."""
    run = _run(store, given["id"])
    run.stop_asked = run.stop_asked or run.alive
    return {"success": True}


def update_run_state(store: Store, given: Node) -> Node:
    """Set a run's state."""
    run = _run(store, given["id"])
    if run.sweep:
        raise GraphQLError("sweep runs cannot have their state updated")
    run.state = given["state"]
    return {"success": True}


def create_run_files(store: Store, given: Node) -> Node:
    """Say where to put files of a run."""
    run = store.run(given["projectName"], given["runName"])
    if run is None:
        raise GraphQLError(f"run {given['runName']} not found")
    files = [{"name": name, "uploadUrl": run_file_url(store, run, name)} for name in given["files"]]
    return {"runID": run.storage, "uploadHeaders": [], "files": files}


def upsert_sweep(store: Store, given: Node) -> Node:
    """Make a sweep, or change its config or state."""
    _own(given)
    sweep, warnings = store.sweep(given.get("id")), []
    if given.get("id") and sweep is None:
        raise GraphQLError(f"sweep {given['id']} not found")
    if given.get("config"):
        config = yaml.safe_load(given["config"])
        if not isinstance(config, dict) or "method" not in config:
            raise GraphQLError("a sweep's config has to be a mapping with a method")
        try:
            warnings, expected = search.violations(config), search.expected_runs(config)
        except Exception as error:  # whatever the search engine trips over
            raise GraphQLError(f"invalid sweep config: {error}") from error
        if sweep is None:
            sweep = Sweep(new_id(), store.project(given.get("projectName")).name, given["config"], config)
            store.sweeps[sweep.id] = sweep
        sweep.text, sweep.config, sweep.updated, sweep.expected = given["config"], config, time.time(), expected
        sweep.name = given.get("displayName") or sweep.name or config.get("name") or ""
        sweep.controller, sweep.scheduler = given.get("controller"), given.get("scheduler")
    if sweep is None:
        raise GraphQLError("a new sweep needs a config")
    if given.get("state"):
        _set_state(sweep, given["state"].upper())
    if given.get("priorRunsFilters"):
        _adopt(store, sweep, json.loads(given["priorRunsFilters"]))
    search.refresh(store)
    return {"sweep": sweep_node(store, sweep), "configValidationWarnings": warnings}


def _set_state(sweep: Sweep, state: str) -> None:
    sweep.state = "PENDING" if state == "RUNNING" and not sweep.runs else state
    for run in sweep.runs:
        run.stop_asked = run.stop_asked or (state == "CANCELED" and run.alive)


def _adopt(store: Store, sweep: Sweep, filters: Node) -> None:
    for run in list(store.runs.values()):
        if run.project == sweep.project and run.sweep is None and matches(run, filters):
            run.sweep = sweep.id
            sweep.runs.append(run)


def delete_sweep(store: Store, given: Node) -> Node:
    """Forget a sweep; its runs stay."""
    sweep = store.sweep(given["id"])
    if sweep is None:
        raise GraphQLError(f"sweep {given['id']} not found")
    for run in sweep.runs:
        run.sweep = None
    del store.sweeps[sweep.id]
    return {"success": True}


def create_agent(store: Store, given: Node) -> Node:
    """Register an agent."""
    _own(given)
    sweep = store.sweep(given["sweep"])
    if sweep is None:
        raise GraphQLError(f"could not find sweep {given['sweep']}")
    agent = Agent(storage_id("Agent", new_id()), sweep.id, given.get("host") or "")
    store.agents[agent.id] = agent
    return {"agent": {"id": agent.id}}


def agent_heartbeat(store: Store, given: Node) -> Node:
    """Give an agent its next commands.

    Raises:
        NotFound: If the sweep has been deleted.
    """
    agent = store.agents.get(given["id"])
    if agent is None or agent.sweep not in store.sweeps:
        raise NotFound(f"the sweep of agent {given['id']} is gone")
    alive = {name for name, lives in json.loads(given.get("runState") or "{}").items() if lives}
    commands = search.heartbeat(store, agent, alive)
    return {"agent": {"id": agent.id}, "commands": json.dumps(commands)}


def upsert_view(store: Store, given: Node) -> Node:
    """Make or change a report."""
    _own(given)
    json.loads(given["spec"])
    known = store.views.get((given.get("id") or "").rstrip("="))
    if known is None and given.get("projectName") not in store.projects:
        raise GraphQLError(f"project {given.get('projectName')!r} not found: a report needs one")
    now = stamp(time.time())
    view = known or {"id": storage_id("View", new_id()), "createdAt": now, "user": user_node()}
    for key in ("type", "name", "displayName", "description", "spec"):
        view[key] = given.get(key) if given.get(key) is not None else view.get(key) or ""
    if known is None:
        view["project"] = project_node(store, store.projects[given["projectName"]])
    view["updatedAt"] = now
    store.views[view["id"].rstrip("=")] = view
    return {"view": view, "inserted": known is None}


def delete_view(store: Store, given: Node) -> Node:
    """Delete a report."""
    found = store.views.pop(given["id"].rstrip("="), None)
    return {"success": found is not None, "pendingDrafts": False}

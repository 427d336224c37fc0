"""Projects, sweeps, runs and their files as GraphQL nodes."""

import base64
import fnmatch
import hashlib
import json
import math
import mimetypes
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.support.wandb_server.artifacts import artifact_node, collection_node, find_artifact, membership_node
from tests.support.wandb_server.history import history_keys, rows, sampled, tail
from tests.support.wandb_server.listing import connection, matches, order_by
from tests.support.wandb_server.store import ENTITY, Agent, Project, Run, Store, Sweep, dump, stamp, storage_id

Node = dict[str, Any]


def user_node() -> Node:
    """Return the one user."""
    node: Node = {
        "__typename": "User",
        "id": storage_id("User", 1),
        "name": ENTITY,
        "username": ENTITY,
        "email": f"{ENTITY}@example.com",
        "admin": False,
        "flags": "{}",
        "entity": ENTITY,
        "deletedAt": None,
        "photoUrl": None,
        "apiKeys": {"edges": []},
        "teams": {"edges": [{"node": {"name": ENTITY}}]},
    }
    return node


def entity_node(name: str | None) -> Node | None:
    """Return the one entity; others do not exist."""
    if name and name != ENTITY:
        return None
    return {
        "__typename": "Entity",
        "id": storage_id("Entity", ENTITY),
        "name": ENTITY,
        "organization": None,
        "user": {"organizations": []},
        "isTeam": False,
        "entityType": "user",
        "readOnly": False,
        "defaultAccess": "PRIVATE",
        "xxhashDigestsEnabled": False,
    }


def project_node(store: Store, project: Project) -> Node:
    """Return a project with everything in it."""

    def runs(arguments: Node) -> list[Run]:
        wanted = json.loads(arguments.get("filters") or "{}")
        found = [run for run in store.runs.values() if run.project == project.name and matches(run, wanted)]
        return order_by(found, arguments.get("order"))

    def run(arguments: Node) -> Node | None:
        found = store.run(project.name, arguments["name"])
        return run_node(store, found) if found else None

    def sweeps(arguments: Node) -> Node:
        found = sorted((sweep for sweep in store.sweeps.values() if sweep.project == project.name), key=_newest)
        return connection(found, lambda sweep: sweep_node(store, sweep), lambda sweep: sweep.id, arguments)

    def sweep(arguments: Node) -> Node | None:
        found = store.sweep(arguments["sweepName"])
        return sweep_node(store, found) if found and found.project == project.name else None

    def views(arguments: Node) -> Node:
        kind, name = arguments.get("viewType") or "runs", arguments.get("viewName")
        found = [
            view
            for view in store.views.values()
            if view["project"]["name"] == project.name and view["type"] == kind and name in (None, view["name"])
        ]
        return connection(found, lambda view: view, lambda view: view["id"], arguments)

    def artifact(arguments: Node) -> Node | None:
        found = find_artifact(store, project.name, arguments["name"])
        return artifact_node(store, found) if found else None

    def membership(arguments: Node) -> Node | None:
        found = find_artifact(store, project.name, arguments["name"])
        return membership_node(store, found) if found else None

    return {
        "__typename": "Project",
        "id": project.storage,
        "internalId": str(project.number),
        "name": project.name,
        "entityName": ENTITY,
        "entity": entity_node(ENTITY),
        "description": None,
        "access": "PRIVATE",
        "views": "{}",
        "createdAt": stamp(project.created),
        "isBenchmark": False,
        "readOnly": False,
        "user": user_node(),
        "totalSweeps": sum(sweep.project == project.name for sweep in store.sweeps.values()),
        "runCount": lambda arguments: len(runs(arguments)),
        "runs": lambda arguments: connection(
            runs(arguments), lambda run: run_node(store, run), lambda run: run.id, arguments
        ),
        "run": run,
        "bucket": run,
        "sweeps": sweeps,
        "sweep": sweep,
        "allViews": views,
        "artifact": artifact,
        "artifactType": lambda arguments: {"name": arguments["name"], "artifactCollection": None},
        "artifactCollection": lambda arguments: collection_node(store, project.name, arguments["name"]),
        "artifactCollectionMembership": membership,
    }


def _newest(sweep: Sweep) -> float:
    return -sweep.created


def sweep_node(store: Store, sweep: Sweep) -> Node:
    """Return a sweep."""

    def best(_: Node) -> float | None:
        metric = sweep.config.get("metric") or {}
        values = [run.summary[metric["name"]] for run in sweep.runs if metric.get("name") in run.summary]
        numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
        return (max if metric.get("goal") == "maximize" else min)(numbers) if numbers else None

    def agent(arguments: Node) -> Node | None:
        found = store.agents.get(arguments["agentName"])
        return agent_node(store, found) if found and found.sweep == sweep.id else None

    agents = [found for found in store.agents.values() if found.sweep == sweep.id]
    return {
        "__typename": "Sweep",
        "id": sweep.storage,
        "name": sweep.id,
        "displayName": sweep.name or None,
        "method": sweep.config.get("method", ""),
        "state": sweep.state,
        "description": sweep.config.get("description"),
        "config": sweep.text,
        "createdAt": stamp(sweep.created),
        "updatedAt": stamp(sweep.updated),
        "heartbeatAt": stamp(max([sweep.created, *(found.heartbeat for found in agents)])),
        "earlyStopJobRunning": False,
        "bestLoss": best,
        "controller": sweep.controller,
        "scheduler": sweep.scheduler,
        "controllerRunName": None,
        "runCount": len(sweep.runs),
        "runCountExpected": sweep.expected,
        "priority": None,
        "project": lambda _: project_node(store, store.project(sweep.project)),
        "runs": lambda arguments: connection(
            list(sweep.runs), lambda run: run_node(store, run), lambda run: run.id, arguments
        ),
        "agents": lambda _: {"edges": [{"node": agent_node(store, found)} for found in agents]},
        "agent": agent,
    }


def agent_node(store: Store, agent: Agent) -> Node:
    """Return an agent and the runs that it was given."""
    given = [run for run in store.sweeps[agent.sweep].runs if run.id in agent.given]
    return {
        "__typename": "Agent",
        "id": agent.id,
        "name": agent.id,
        "host": agent.host,
        "state": "RUNNING" if time.time() - agent.heartbeat < store.crash_after else "CRASHED",
        "totalRuns": len(given),
        "createdAt": stamp(agent.created),
        "heartbeatAt": stamp(agent.heartbeat),
        "runs": lambda arguments: connection(given, lambda run: run_node(store, run), lambda run: run.id, arguments),
    }


def run_node(store: Store, run: Run) -> Node:
    """Return a run; whatever is long is worked out only when asked for."""

    def run_artifacts(found: list[Any]) -> Callable[[Node], Node]:
        return lambda arguments: connection(
            found, lambda item: artifact_node(store, item), lambda item: item.storage, arguments
        )

    logged = [item for item in store.artifacts.values() if item.run == run.id and item.project == run.project]
    used = [store.artifacts[name] for name in run.used if name in store.artifacts]
    return {
        "__typename": "Run",
        "id": run.storage,
        "name": run.id,
        "projectId": str(store.project(run.project).number),
        "displayName": run.display_name,
        "sweepName": run.sweep,
        "state": run.state,
        "config": lambda _: dump(run.raw_config),
        "wandbConfig": lambda arguments: _wandb_config(run, arguments.get("keys") or []),
        "group": run.group,
        "groupName": run.group,
        "jobType": run.job_type,
        "tags": list(run.tags),
        "notes": run.notes,
        "description": run.description,
        "commit": None,
        "readOnly": False,
        "createdAt": stamp(run.created),
        "heartbeatAt": stamp(time.time() - (time.monotonic() - run.heartbeat)),
        "user": user_node(),
        "project": lambda _: project_node(store, store.project(run.project)),
        "exitcode": run.exit_code,
        "shouldStop": run.told_to_stop,
        "stopped": run.told_to_stop or run.state == "killed",
        "failed": run.state == "failed",
        "running": run.alive,
        "summaryMetrics": lambda _: dump(run.summary),
        "systemMetrics": lambda _: dump(run.events[max(run.events)] if run.events else {}),
        "historyLineCount": len(run.lines),
        "eventsLineCount": len(run.events),
        "logLineCount": len(run.console),
        "historyTail": lambda _: tail(run.lines),
        "eventsTail": lambda _: tail(run.events),
        "historyKeys": lambda _: history_keys(run),
        "history": lambda arguments: [dump(row) for row in rows(run.history, arguments)],
        "events": lambda arguments: [dump(row) for row in rows([run.events[i] for i in sorted(run.events)], arguments)],
        "sampledHistory": lambda arguments: sampled(run, arguments.get("specs")),
        "parquetHistory": {"parquetUrls": [], "liveData": [{"_step": 0}]},  # no export: clients read the live rows
        "logLines": lambda arguments: _log_lines(run, arguments),
        "fileCount": len(run.files),
        "files": lambda arguments: _files(store, run, arguments),
        "outputArtifacts": run_artifacts(logged),
        "inputArtifacts": run_artifacts(used),
    }


def _wandb_config(run: Run, keys: list[str]) -> str:
    """Return part of the client's own config; it is there once the run has started."""
    own = run.raw_config.get("_wandb") or {}
    own = own.get("value", own)
    return dump({key: own[key] for key in keys if key in own})


def _log_lines(run: Run, arguments: Node) -> Node:
    lines = sorted(run.console.items())
    if arguments.get("last"):
        lines = lines[-arguments["last"] :]
    return connection(lines, _log_line, lambda item: str(item[0]), arguments)


def _log_line(item: tuple[int, str]) -> Node:
    return {"number": item[0], "timestamp": None, "level": None, "label": None, "line": item[1]}


def run_file_url(store: Store, run: Run, name: str) -> str:
    """Return where a file of the run is put and got."""
    return f"{store.url}/storage/runs/{quote(run.project, safe='')}/{quote(run.id, safe='')}/{quote(name, safe='')}"


def _files(store: Store, run: Run, arguments: Node) -> Node:
    names, pattern = arguments.get("names") or [], arguments.get("pattern")
    found = [name for name in sorted(run.files) if not names or name in names]
    if pattern:
        glob = pattern.replace("%", "*").replace("_", "?")
        found = [name for name in found if fnmatch.fnmatchcase(name, glob)]

    def node(name: str) -> Node:
        url = run_file_url(store, run, name)
        return {
            "__typename": "File",
            "id": storage_id("File", run.project, run.id, name),
            "name": name,
            "url": url,
            "directUrl": url,
            "sizeBytes": len(run.files[name]),
            "mimetype": mimetypes.guess_type(name)[0] or "",
            "updatedAt": stamp(run.created),
            "md5": base64.b64encode(hashlib.md5(run.files[name]).digest()).decode(),
        }

    return connection(found, node, str, arguments)

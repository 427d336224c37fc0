"""The root nodes of all operations, and what queries answer."""

from typing import Any

from tests.support.wandb_server import artifacts
from tests.support.wandb_server.artifacts import artifact_node
from tests.support.wandb_server.listing import connection
from tests.support.wandb_server.mutations import mutations
from tests.support.wandb_server.nodes import entity_node, project_node, run_node, user_node
from tests.support.wandb_server.store import Store

Node = dict[str, Any]

FEATURES = (
    "FILESTREAM_GZIP",
    "MARK_RUN_FILES_UPLOADED",
    "SWEEPS_QUERY_FILTERING",
    "USE_ARTIFACT_WITH_ENTITY_AND_PROJECT_INFORMATION",
)


def roots(store: Store) -> dict[str, Node]:
    """Return the root nodes of queries and mutations."""
    return {"query": _queries(store), "mutation": mutations(store)}


def _queries(store: Store) -> Node:
    def project(arguments: Node) -> Node | None:
        name = arguments.get("name") or "uncategorized"
        if entity_node(arguments.get("entityName")) is None or name not in store.projects:
            return None
        return project_node(store, store.projects[name])

    def model(arguments: Node) -> Node | None:
        """Answer RunResumeStatus: whoever asks is about to go on with the run."""
        store.project(arguments.get("name"))
        node = project(arguments)
        if node is None:
            return None

        def bucket(inner: Node) -> Node | None:
            run = store.run(arguments.get("name"), inner["name"])
            if run and not run.alive:
                run.should_stop = run.stop_asked = False
            return run_node(store, run) if run else None

        return {**node, "bucket": bucket}

    def models(arguments: Node) -> Node:
        found = list(store.projects.values()) if entity_node(arguments.get("entityName")) else []
        return connection(found, lambda item: project_node(store, item), lambda item: item.name, arguments)

    def view(arguments: Node) -> Node | None:
        return store.views.get(arguments["id"].rstrip("="))

    return {
        "viewer": user_node(),
        "serverInfo": {"features": [{"name": name, "isEnabled": True} for name in FEATURES]},
        "entity": lambda arguments: entity_node(arguments.get("name")),
        "project": project,
        "model": model,
        "models": models,
        "view": view,
        "artifact": lambda arguments: artifact_node(store, artifacts.by_id(store, arguments["id"])),
        "artifactCollection": lambda _: None,
        "clientIDMapping": lambda arguments: {"serverID": artifacts.by_id(store, arguments["clientID"]).storage},
        "organization": lambda _: None,
    }

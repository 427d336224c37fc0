"""Artifacts: made, filled, committed, found and read back."""

import base64
import hashlib
import json
from typing import Any
from urllib.parse import quote

from tests.support.wandb_server.document import GraphQLError
from tests.support.wandb_server.listing import connection
from tests.support.wandb_server.store import ENTITY, Artifact, Store, stamp, storage_id

Node = dict[str, Any]


def digest_of(content: bytes) -> str:
    """Return the content's MD5 in base64, the way manifests name it."""
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def versions(store: Store, project: str, collection: str) -> list[Artifact]:
    """Return the committed versions of a collection, oldest first."""
    found = [
        item
        for item in store.artifacts.values()
        if (item.project, item.collection) == (project, collection) and item.version is not None
    ]
    return sorted(found, key=lambda item: item.version or 0)


def find_artifact(store: Store, project: str, name: str) -> Artifact | None:
    """Return the version that `collection`, `collection:v3` or `collection:alias` means."""
    collection, _, alias = name.rpartition("/")[2].partition(":")
    for item in reversed(versions(store, project, collection)):
        if (alias or "latest") in (f"v{item.version}", *item.aliases):
            return item
    return None


def by_id(store: Store, name: str) -> Artifact:
    """Return an artifact by its storage id or the client's id.

    Raises:
        GraphQLError: If there is none.
    """
    for item in store.artifacts.values():
        if name in (item.storage, item.client_id):
            return item
    raise GraphQLError(f"artifact {name} not found")


def create(store: Store, given: Node) -> Node:
    """Answer createArtifact: a version with the same digest is not made twice."""
    project = store.project(given.get("projectName")).name
    collection = given.get("artifactCollectionName") or given["artifactCollectionNames"][0]
    aliases = [item["alias"] for item in given.get("aliases") or []]
    for item in versions(store, project, collection):
        if item.digest == given["digest"]:
            _put_aliases(store, item, aliases)
            return {"artifact": artifact_node(store, item)}
    item = Artifact(
        number=len(store.artifacts) + 1,
        project=project,
        run=given.get("runName"),
        type=given["artifactTypeName"],
        collection=collection,
        digest=given["digest"],
        description=given.get("description"),
        metadata=given.get("metadata"),
        client_id=given.get("clientID"),
        aliases=aliases,
        tags=[tag["tagName"] for tag in given.get("tags") or []],
    )
    store.artifacts[item.storage] = item
    return {"artifact": artifact_node(store, item)}


def create_manifest(store: Store, given: Node) -> Node:
    """Answer createArtifactManifest and updateArtifactManifest."""
    item = by_id(store, given.get("artifactID") or _artifact_of_manifest(given["artifactManifestID"]))
    url = f"{store.url}/storage/manifests/{quote(item.storage, safe='')}"
    file = {"id": storage_id("Manifest", item.number), "uploadUrl": url, "uploadHeaders": []}
    return {"artifactManifest": {"id": _manifest_id(item), "file": {**file, "directUrl": url}}}


def _manifest_id(item: Artifact) -> str:
    return base64.b64encode(f"manifest of {item.storage}".encode()).decode()


def _artifact_of_manifest(name: str) -> str:
    return base64.b64decode(name).decode().removeprefix("manifest of ")


def create_files(store: Store, given: Node) -> Node:
    """Answer createArtifactFiles: one URL for each asked file, in the same order."""
    edges = []
    for wanted in given["artifactFiles"]:
        item = by_id(store, wanted["artifactID"])
        node: Node = {
            "storagePath": f"artifacts/{item.number}/{wanted['name']}",
            "uploadUrl": file_url(store, item, wanted["name"]),
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": item.storage},
        }
        edges.append({"node": node})
    return {"files": {"edges": edges}}


def file_url(store: Store, item: Artifact, name: str) -> str:
    """Return where a file of the artifact is put and got."""
    return f"{store.url}/storage/artifacts/{quote(item.storage, safe='')}/{quote(name, safe='')}"


def commit(store: Store, given: Node) -> Node:
    """Answer commitArtifact: read the manifest, give it the next version and the alias `latest`."""
    item = by_id(store, given["artifactID"])
    if item.state != "COMMITTED":
        item.entries = json.loads(item.manifest or b"{}").get("contents", {})
        for name, entry in item.entries.items():
            if name not in item.files and entry.get("digest") in store.blobs:
                item.files[name] = store.blobs[entry["digest"]]
        item.version = len(versions(store, item.project, item.collection))
        item.state = "COMMITTED"
        _put_aliases(store, item, ["latest", *item.aliases])
    return {"artifact": artifact_node(store, item)}


def _put_aliases(store: Store, item: Artifact, aliases: list[str]) -> None:
    for other in versions(store, item.project, item.collection):
        if other is not item:
            other.aliases = [alias for alias in other.aliases if alias not in aliases]
    item.aliases = list(dict.fromkeys([*aliases, *item.aliases]))


def use(store: Store, given: Node) -> Node:
    """Answer useArtifact."""
    item = by_id(store, given["artifactID"])
    run = store.run(given.get("projectName"), given["runName"])
    if run and item.storage not in run.used:
        run.used.append(item.storage)
    return {"artifact": artifact_node(store, item)}


def update(store: Store, given: Node) -> Node:
    """Answer updateArtifact."""
    item = by_id(store, given["artifactID"])
    item.metadata = given.get("metadata", item.metadata)
    item.description = given.get("description", item.description)
    return {"artifact": artifact_node(store, item)}


def artifact_node(store: Store, item: Artifact) -> Node:
    """Return a version as a node."""
    url = f"{store.url}/storage/manifests/{quote(item.storage, safe='')}"
    return {
        "__typename": "Artifact",
        "id": item.storage,
        "artifactSequence": lambda _: sequence_node(store, item.project, item.collection),
        "versionIndex": item.version,
        "artifactType": {"name": item.type},
        "description": item.description,
        "metadata": item.metadata,
        "ttlDurationSeconds": -2,
        "ttlIsInherited": True,
        "tags": [{"__typename": "Tag", "id": storage_id("Tag", tag), "name": tag} for tag in item.tags],
        "historyStep": None,
        "state": item.state,
        "size": sum(map(len, item.files.values())),
        "digest": item.digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": "",
        "fileCount": len(item.files),
        "createdAt": stamp(item.created),
        "updatedAt": stamp(item.created),
        "aliases": lambda _: [_alias_node(store, item, alias) for alias in item.aliases],
        "currentManifest": {"id": _manifest_id(item), "file": {"directUrl": url}},
        "files": lambda arguments: _files(store, item, arguments),
        "filesByManifestEntries": lambda arguments: _files(store, item, arguments),
    }


def _alias_node(store: Store, item: Artifact, alias: str) -> Node:
    return {
        "__typename": "ArtifactAlias",
        "id": storage_id("Alias", item.number, alias),
        "alias": alias,
        "artifactCollection": lambda _: sequence_node(store, item.project, item.collection),
    }


def sequence_node(store: Store, project: str, collection: str) -> Node:
    """Return a collection of versions, empty ones included."""
    known = versions(store, project, collection)
    owner = store.project(project)
    return {
        "__typename": "ArtifactSequence",
        "id": storage_id("Collection", project, collection),
        "name": collection,
        "digestAlgorithm": "MANIFEST_MD5",
        "project": {
            "id": owner.storage,
            "internalId": str(owner.number),
            "name": project,
            "entity": {"name": ENTITY},
        },
        "latestArtifact": lambda _: artifact_node(store, known[-1]) if known else None,
        "artifactMembership": lambda arguments: _member(store, project, collection, arguments["aliasName"]),
        "aliases": lambda arguments: connection(
            [(item, alias) for item in known for alias in item.aliases],
            lambda pair: _alias_node(store, *pair),
            lambda pair: pair[1],
            arguments,
        ),
    }


def collection_node(store: Store, project: str, collection: str) -> Node | None:
    """Return a collection that has a version, or nothing."""
    return sequence_node(store, project, collection) if versions(store, project, collection) else None


def _member(store: Store, project: str, collection: str, alias: str) -> Node | None:
    item = find_artifact(store, project, f"{collection}:{alias}")
    return membership_node(store, item) if item else None


def membership_node(store: Store, item: Artifact) -> Node:
    """Return a version as a member of its collection."""
    return {
        "__typename": "ArtifactCollectionMembership",
        "id": storage_id("Membership", item.number),
        "versionIndex": item.version,
        "createdAt": stamp(item.created),
        "aliases": lambda _: [_alias_node(store, item, alias) for alias in item.aliases],
        "artifactCollection": lambda _: sequence_node(store, item.project, item.collection),
        "artifact": artifact_node(store, item),
        "files": lambda arguments: _files(store, item, arguments),
    }


def _files(store: Store, item: Artifact, arguments: Node) -> Node:
    names = arguments.get("names") or [entry["name"] for entry in arguments.get("entries") or []]
    found = [name for name in sorted(item.files) if not names or name in names]

    def node(name: str) -> Node:
        url = file_url(store, item, name)
        return {
            "__typename": "File",
            "id": storage_id("ArtifactFile", item.number, name),
            "name": name,
            "displayName": name,
            "url": url,
            "directUrl": url,
            "sizeBytes": len(item.files[name]),
            "storagePath": f"artifacts/{item.number}/{name}",
            "mimetype": "",
            "updatedAt": stamp(item.created),
            "digest": digest_of(item.files[name]),
            "md5": digest_of(item.files[name]),
        }

    return connection(found, node, str, arguments)

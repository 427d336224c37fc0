"""The HTTP side: GraphQL, run streams, uploads and downloads."""

import base64
import gzip
import json
import re
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.support.wandb_server import graphql
from tests.support.wandb_server.artifacts import digest_of
from tests.support.wandb_server.document import GraphQLError
from tests.support.wandb_server.resolvers import roots
from tests.support.wandb_server.search import refresh
from tests.support.wandb_server.store import ENTITY, Store, dump
from tests.support.wandb_server.streams import take_in

STREAM = re.compile(r"^/files/([^/]+)/([^/]+)/([^/]+)/file_stream$")
OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")
# Variables whose value is the id of a run, in one operation or another.
RUN_VARIABLES = ("name", "run", "runName", "id")


class Listener(ThreadingHTTPServer):
    """The listening socket, and the connections that are open."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, store: Store, key: str, status_for: Callable[[str], int | None]) -> None:
        """Bind to 127.0.0.1; `status_for` says which requests to answer with a fault."""
        self.store, self.status_for, self.down, self.falls = store, status_for, False, False
        self.heard: list[bytes] | None = None  # paths and bodies of requests, if they are to be kept
        self.authorization = "Basic " + base64.b64encode(f"api:{key}".encode()).decode()
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)

    def go_down(self) -> None:
        """Drop every connection without an answer, from now on."""
        self.down = True
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close what is open, in the middle of whatever goes on."""
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed already

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Note faults of this server; that clients hang up is none."""
        if not isinstance(sys.exception(), OSError):
            self.store.errors.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and body leave together

    def setup(self) -> None:
        """Keep the connection in mind."""
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        """Answer GraphQL and the streams of runs."""
        self._guard(self._post)

    def do_PUT(self) -> None:
        """Take in a file."""
        self._guard(self._upload)

    def do_GET(self) -> None:
        """Give a file."""
        self._guard(self._download)

    def _guard(self, answer: Callable[[], None]) -> None:
        """Answer faults of this server with 400, after which no client asks again: it must not wait for ever."""
        try:
            answer()
        except OSError:
            raise  # the client has hung up
        except Exception:
            self.server.store.errors.append(f"{self.command} {self.path}: {traceback.format_exc()}")
            self._send(400, json.dumps({"error": traceback.format_exc()}).encode())

    def _post(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        stream = STREAM.match(path)
        if path == "/graphql":
            self._graphql(json.loads(body))
        elif stream:
            self._stream(unquote(stream[2]), unquote(stream[3]), json.loads(body))
        else:
            self._unknown()

    def _upload(self) -> None:
        body, path = self._body(), self._storage()
        owner = self._owner(path)
        if self._goes_on("upload", owner):
            with self.server.store.lock:
                kept = self._put(path, body)
            self._send(200 if kept else 404, b"")

    def _download(self) -> None:
        self._body()
        path = self._storage()
        if self._goes_on("download", self._owner(path)):
            with self.server.store.lock:
                content = self._get(path)
            if content is None:
                self._unknown()
            else:
                self._send(200, content, "application/octet-stream")

    def _body(self) -> bytes:
        """Read the request's body, whichever way it comes.

        Raises:
            ConnectionError: If the client hangs up meanwhile.
        """
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            body = b"".join(self._chunks())
        else:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            if len(body) < size:
                raise ConnectionError("hung up")
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if self.server.heard is not None:
            self.server.heard += [self.path.encode(), body]
        return body

    def _chunks(self) -> Iterator[bytes]:
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            yield self.rfile.read(size)
            self.rfile.readline()
        else:
            raise ConnectionError("hung up")
        while self.rfile.readline().strip():
            pass  # trailers

    def _goes_on(self, what: str, *runs: str | None) -> bool:
        """Count the request; answer it here if the server is down or told to fail."""
        if self.server.down:
            self.close_connection = True
            return False
        with self.server.store.lock:
            self.server.store.count(what, {run for run in runs if run})
            status = self.server.status_for(what)
        if status is not None:
            self._send(status, b'{"error": "told to fail"}')
        return status is None

    def _graphql(self, body: dict[str, Any]) -> None:
        variables, store = body.get("variables") or {}, self.server.store
        match = OPERATION.search(body["query"])
        name = body.get("operationName") or (match[1] if match else "anonymous")
        if not self._goes_on(name, *self._named_runs(variables)):
            return
        if self.headers.get("Authorization") != self.server.authorization:
            self._send(401, b'{"errors": [{"message": "invalid API key"}]}')
            return
        status = 200
        answer: dict[str, Any]
        try:
            with store.lock:
                refresh(store)
                answer = {"data": graphql.execute(body["query"], name, variables, roots(store))}
        except graphql.NotFound as error:
            status, answer = 404, {"errors": [{"message": str(error)}]}
        except GraphQLError as error:
            answer = {"errors": [{"message": f"{name}: {error}"}], "data": None}
        except Exception as error:  # a fault of this server: the client must not wait for it to go away
            answer = {"errors": [{"message": f"{name}: {type(error).__name__}: {error}"}], "data": None}
            store.errors.append(f"{name}: {traceback.format_exc()}")
        if "Cannot query field" in str(answer.get("errors")):
            store.errors.append(answer["errors"][0]["message"])
        self._send(status, dump(answer).encode())

    def _named_runs(self, variables: dict[str, Any]) -> set[str]:
        """Return the ids of runs among the variables (and other names, which do no harm)."""
        inner = variables.get("input")
        given = {**variables, **(inner if isinstance(inner, dict) else {})}
        found = {given[name] for name in RUN_VARIABLES if isinstance(given.get(name), str)}
        artifact = self.server.store.artifacts.get(str(given.get("artifactID")))
        return found | ({artifact.run} if artifact and artifact.run else set())

    def _stream(self, project: str, run_id: str, body: dict[str, Any]) -> None:
        if not self._goes_on("file_stream", run_id):
            return
        store = self.server.store
        with store.lock:
            run = store.run(project, run_id)
            if self.server.falls and run and (body.get("complete") or len(run.history) > 1):
                self.server.falls = False
                self.server.go_down()
                return
            answer = take_in(store, run, body) if run else None
        if answer is None:
            self._send(404, f'{{"error": "run {ENTITY}/{project}/{run_id} not found"}}'.encode())
        else:
            self._send(200, json.dumps(answer).encode())

    def _storage(self) -> list[str]:
        """Return the parts of the path, decoded."""
        return [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]

    def _owner(self, path: list[str]) -> str | None:
        """Return the id of the run that a stored file belongs to."""
        if path[:2] == ["storage", "runs"]:
            return path[3]
        artifact = self.server.store.artifacts.get(path[2] if len(path) > 2 else "")
        return artifact.run if artifact else None

    def _put(self, path: list[str], body: bytes) -> bool:
        store = self.server.store
        match path:
            case ["storage", "runs", project, run_id, name] if run := store.run(project, run_id):
                run.files[name] = body
            case ["storage", "artifacts", number, name] if item := store.artifacts.get(number):
                item.files[name] = store.blobs[digest_of(body)] = body
            case ["storage", "manifests", number] if item := store.artifacts.get(number):
                item.manifest = body
            case _:
                return False
        return True

    def _get(self, path: list[str]) -> bytes | None:
        store = self.server.store
        match path:
            case ["storage", "runs", project, run_id, name] if run := store.run(project, run_id):
                return run.files.get(name)
            case ["storage", "artifacts", number, name] if item := store.artifacts.get(number):
                return item.files.get(name)
            case ["storage", "manifests", number] if item := store.artifacts.get(number):
                return item.manifest
            case ["artifactsV2", *_, digest, _name]:
                return store.blobs.get(base64.b64encode(bytes.fromhex(digest)).decode())
        return None

    def _unknown(self) -> None:
        self.server.store.errors.append(f"unknown: {self.command} {self.path}")
        self._send(404, b'{"error": "unknown path"}')

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

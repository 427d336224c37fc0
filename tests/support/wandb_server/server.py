"""The server as tests see it: start it, look into it, break it, mend it."""

import json
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.wandb_server import mutations, search
from tests.support.wandb_server.endpoints import Listener
from tests.support.wandb_server.store import Artifact, Run, Store, Sweep

API_KEY = "local-" + "0123456789abcdef" * 3
DEFAULT_PROJECT = "finetune-sweeps"


@dataclass
class Fault:
    """Requests to answer with a status: how many more, which share of them, of which kind."""

    status: int
    times: int | None
    share: float
    only: str | None


class Server:
    """A W&B backend on the loopback interface.

    Runs and sweeps that it returns are live: their attributes go on changing with what clients send.
    """

    def __init__(self, port: int = 0) -> None:
        """Bind to a port; `start` begins to answer."""
        self.store = Store()
        self.failed: Counter[str] = Counter()
        self._faults: list[Fault] = []
        self._dice = random.Random(0)
        self._listener = Listener(port, self.store, API_KEY, self._status_for)
        self.store.url = self.url = f"http://127.0.0.1:{self._listener.server_port}"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and close all connections."""
        self._listener.shutdown()
        self._listener.drop_connections()
        self._listener.server_close()
        self._thread.join()

    def environment(self, folder: Path) -> dict[str, str]:
        """Return a whole environment for processes that shall talk to this server and write only into `folder`."""
        inside = {
            name: folder / name.lower()
            for name in (
                "WANDB_DIR",
                "WANDB_CACHE_DIR",
                "WANDB_DATA_DIR",
                "WANDB_CONFIG_DIR",
                "WANDB_ARTIFACT_DIR",
                "HOME",
            )
        }
        for path in inside.values():
            path.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        return {
            **kept,
            **{name: str(path) for name, path in inside.items()},
            "NETRC": str(folder / "netrc"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
            **{
                f"WANDB__{kind}_RETRY_WAIT_{bound}_SECONDS": "1"  # the client cuts fractions off
                for kind in ("FILE_STREAM", "GRAPHQL", "FILE_TRANSFER")
                for bound in ("MIN", "MAX")
            },
        }

    @property
    def counts(self) -> Counter[str]:
        """Requests by GraphQL operation, and "file_stream", "upload", "download"; failed ones count, too."""
        with self.store.lock:
            return Counter(self.store.counts)

    def counts_of(self, run_id: str) -> Counter[str]:
        """Return the requests that name this run."""
        with self.store.lock:
            storage = [run.storage for run in self.store.runs.values() if run.id == run_id]
            return sum((self.store.run_counts.get(name, Counter()) for name in [run_id, *storage]), Counter())

    @property
    def errors(self) -> list[str]:
        """Requests that could not be answered: unknown operations and fields, and faults of this server."""
        with self.store.lock:
            return list(self.store.errors)

    def runs(self, project: str = DEFAULT_PROJECT, sweep: str | None = None) -> list[Run]:
        """Return the runs of a project, or of one sweep of it, in creation order."""
        with self.store.lock:
            search.refresh(self.store)
            found = [run for run in self.store.runs.values() if run.project == project]
            return [run for run in found if sweep is None or run.sweep == sweep]

    def run(self, run_id: str) -> Run:
        """Return a run, whichever project it is in.

        Raises:
            KeyError: If there is none.
        """
        with self.store.lock:
            search.refresh(self.store)
            return self.store.find_run(run_id)

    def sweep(self, sweep_id: str) -> Sweep:
        """Return a sweep.

        Raises:
            KeyError: If there is none.
        """
        with self.store.lock:
            search.refresh(self.store)
            return self.store.sweeps[sweep_id]

    def sweeps(self, project: str = DEFAULT_PROJECT) -> list[Sweep]:
        """Return the sweeps of a project in creation order."""
        with self.store.lock:
            search.refresh(self.store)
            return [sweep for sweep in self.store.sweeps.values() if sweep.project == project]

    def create_sweep(self, text: str, project: str = DEFAULT_PROJECT) -> str:
        """Create a sweep from the text of its file, as `wandb sweep` does, and return its id."""
        with self.store.lock:
            mutations.upsert_sweep(self.store, {"config": text, "projectName": project})
            return next(reversed(self.store.sweeps))

    def artifacts(self, run_id: str) -> list[Artifact]:
        """Return the committed artifacts that a run logged; their names have the version (`data:v0`)."""
        with self.store.lock:
            found = self.store.artifacts.values()
            return [item for item in found if item.run == run_id and item.state == "COMMITTED"]

    def views(self) -> list[dict[str, Any]]:
        """Return the reports: type, name, displayName, description, spec (parsed), project (its name), id."""
        with self.store.lock:
            return [
                {**view, "spec": json.loads(view["spec"]), "project": view["project"]["name"]}
                for view in self.store.views.values()
            ]

    def listen(self) -> list[bytes]:
        """Return a list that gets path and body of each request from now on; the login is in neither."""
        self._listener.heard = heard = []
        return heard

    def go_down(self) -> None:
        """Drop every connection without an answer, from now on."""
        self._listener.go_down()

    def fall_in_run(self) -> None:
        """Go down once a run has sent two rows and goes on; before it is complete in any case."""
        self._listener.falls = True

    def come_back(self) -> None:
        """Answer again."""
        self._listener.down = False

    def fail(self, status: int, times: int | None = None, share: float = 1.0, only: str | None = None) -> None:
        """Answer requests with this status, from now on; several such orders hold at once.

        Args:
            status: The HTTP status.
            times: How many of them; all if not given.
            share: The probability for each.
            only: An operation's name, or "file_stream", "upload", "download"; all if not given.
        """
        with self.store.lock:
            self._faults.append(Fault(status, times, share, only))

    def heal(self) -> None:
        """Answer as usual again."""
        with self.store.lock:
            self._faults.clear()

    def stop_run(self, run_id: str) -> None:
        """Ask a run to stop, as the button on its page does."""
        with self.store.lock:
            mutations.stop_run(self.store, {"id": run_id})

    def delete_run(self, run_id: str) -> None:
        """Delete a run, as the web page does."""
        with self.store.lock:
            mutations.delete_run(self.store, {"id": run_id})

    def delete_sweep(self, sweep_id: str) -> None:
        """Delete a sweep, as the web page does: its agents' heartbeats get 404."""
        with self.store.lock:
            mutations.delete_sweep(self.store, {"id": sweep_id})

    @property
    def crash_after(self) -> float:
        """Seconds without a sign of life until a run is taken for crashed."""
        return self.store.crash_after

    @crash_after.setter
    def crash_after(self, seconds: float) -> None:
        self.store.crash_after = seconds

    def _status_for(self, what: str) -> int | None:
        """Return the status to answer a request with instead of serving it, if any."""
        for fault in self._faults:
            if fault.only in (None, what) and fault.times != 0 and self._dice.random() < fault.share:
                fault.times = None if fault.times is None else fault.times - 1
                self.failed[what] += 1
                return fault.status
        return None


@contextmanager
def serve(port: int = 0) -> Iterator[Server]:
    """Serve until the block ends."""
    server = Server(port)
    server.start()
    try:
        yield server
    finally:
        server.close()

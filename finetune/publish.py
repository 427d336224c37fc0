"""Send to W&B what it lacks: a whole offline sweep, or the rest of a sweep whose runs missed the server.

    python -m finetune.publish runs/demo        (make publish SWEEP=runs/demo)

The sweep is created once, each run is sent under its own id, once; doing it again sends only what is new.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout

from finetune.errors import EXIT_FAILED, UserError
from finetune.rundir import claim, files, keys
from finetune.sweep.sweep_file import RUNS, is_unfinished, refuse_secrets
from finetune.system import documents
from finetune.system.atomic import replacing
from finetune.system.locks import hold
from finetune.system.output import command
from finetune.system.progress_bar import track
from finetune.tracking import sweep_server
from finetune.tracking.mirror_client import MirrorClient, WandbRunRef, is_off
from finetune.tracking.sweep_address import SweepAddress
from finetune.tracking.sweep_server import WandbError, WandbSweep, WandbUnreachable

CONCURRENT_RUNS = 2  # runs sent side by side; more would meet the free tier's 50 requests a minute
WAIT_SECONDS = 600.0
MAX_REMOTE = 4096  # bytes of the file that names the sweep on the server


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Publish a sweep; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m finetune.publish", description="Send a sweep's runs to W&B.")
    parser.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP", help="the folder of runs, such as runs/demo")
    parser.add_argument("--project", help="W&B project (default: the sweep file's)")
    parser.add_argument("--entity", help="W&B user or team (default: the account's)")
    options = parser.parse_args(arguments)
    if options.sweep is None:
        raise UserError(f"name the sweep: make publish SWEEP=runs/NAME.{_known()}")
    return publish(options.sweep, options.entity, options.project)


def publish(folder: Path, entity: str | None = None, project: str | None = None) -> int:
    """Send what W&B has not got of the sweep in `folder`; return 0, or 1 if something did not arrive.

    Raises:
        UserError: the folder holds no sweep, there is no login, or the server can't be reached.
    """
    if not (folder / keys.SWEEP).is_file() and not (folder / keys.REMOTE).is_file():
        raise UserError(f"{folder} holds no sweep (no {keys.SWEEP}): name a folder below runs/.{_known()}")
    if reason := sweep_server.reason_offline():
        mend = "Unset it" if is_off() else "Log in with `wandb login`, or set WANDB_API_KEY"
        raise UserError(f"{reason}: nothing can be sent. {mend}")
    try:
        with hold(folder / ".publish.lock", max_seconds=0):
            return _publish(folder, entity, project)
    except Timeout:
        raise UserError(f"{folder} is being published by another process: wait for it to end") from None


def _publish(folder: Path, entity: str | None, project: str | None) -> int:
    remote = _remote(folder, entity, project)
    runs = files.find_runs(folder)
    there = sweep_server.run_states(remote, [run.name for run in runs])
    todo = [(run, target) for run in runs for target in _missing(run, remote, there)]
    unfinished = [run.name for run in runs if files.status(run)[0] not in ("finished", "failed")]
    print(f"{remote.url or remote.path}: {len(todo)} run{'' if len(todo) == 1 else 's'} to send")
    if unfinished:
        print(f"not sent before they are finished: {', '.join(unfinished)}")
    lost = []
    mirrors: list[MirrorClient] = []
    pool = ThreadPoolExecutor(CONCURRENT_RUNS)
    sending = {pool.submit(_send, run, target, mirrors): run for run, target in todo}
    try:
        for future in track(as_completed(sending), len(todo), "sending"):
            if fault := future.result():
                lost.append(f"{sending[future]}: {fault}")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for mirror in mirrors:
            mirror.kill()  # nothing to those that have ended
    for line in lost:
        print(f"not sent: {line}", file=sys.stderr)
    report = f"make report SWEEP={shlex.quote(str(folder))}"
    print(f"{len(todo) - len(lost)} sent. To write a W&B Report of the sweep: {report}")
    is_over = not lost and (folder / keys.PLAN).exists() and not is_unfinished(folder)
    if is_over and not sweep_server.stop_sweep(remote):  # there is nothing left that an agent could do
        print(f"W&B still takes the sweep for unfinished; to end it: wandb sweep --stop {remote.path}")
    return EXIT_FAILED if lost else 0


def _known() -> str:
    """Return a sentence that lists the sweeps there are here, or nothing."""
    names = sorted(str(path.parent) for path in RUNS.glob(f"*/{keys.SWEEP}"))
    return f" Sweeps here: {', '.join(names)}" if names else ""


def _remote(folder: Path, entity: str | None, project: str | None) -> WandbSweep:
    """Return the sweep on the server that `folder` belongs to; it is created if there is none yet."""
    known = documents.read_json(folder / keys.REMOTE)
    if known is not None:
        if not all(isinstance(known.get(name), str) for name in ("project", "sweep")):
            raise UserError(
                f"{folder / keys.REMOTE} names no sweep on W&B: delete it, and the runs are sent as a new one"
            )
        try:
            return sweep_server.find_sweep(SweepAddress(known.get("entity"), known["project"], known["sweep"]))
        except WandbUnreachable:
            raise
        except WandbError as error:
            raise UserError(
                f"{error}\nIf it was deleted there, delete {folder / keys.REMOTE} and {folder}/*/wandb-*.json: "
                "then the runs are sent as a new sweep"
            ) from None
    file = folder / keys.SWEEP
    try:
        text = file.read_text(encoding="utf-8")
        spec = documents.load_yaml(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} can't be read as a sweep file ({error})") from error
    if not isinstance(spec, dict):
        raise UserError(f"{file} holds no sweep")
    refuse_secrets(text, file)
    spec = {"name": folder.resolve().name, **spec}
    with replacing(folder / keys.REMOTE) as temporary:
        # Takes the room first: a sweep that is made and can't be noted would be made once more the next time.
        temporary.write_text(" " * MAX_REMOTE)
        remote = sweep_server.create_sweep(spec, entity, project or spec.get("project") or "finetune-sweeps")
        names = {"entity": remote.entity, "project": remote.project, "sweep": remote.id, "url": remote.url}
        with temporary.open("r+", encoding="utf-8") as noted:
            noted.write(documents.json_text(names))
            noted.truncate()
    return remote


def _missing(run: Path, remote: WandbSweep, there: dict[str, tuple[str | None, str]]) -> list[WandbRunRef]:
    """Return the W&B runs that this run directory is yet to be sent to: those it was begun for, else its own.

    Args:
        there: id -> (sweep, state) of the runs on the server that belong to the sweep or have a name of these.
    """
    state = files.status(run)[0]
    if state not in ("finished", "failed") or claim.is_alive(run):
        return []
    notes = {file.stem.removeprefix("wandb-"): documents.read_json(file) or {} for file in run.glob("wandb-*.json")}
    sent = {id for id, note in notes.items() if id in there and _is_sent(note, state)}
    ids = {id for id in notes if there.get(id, (remote.id,))[0] == remote.id}  # of this sweep, not of another
    if not ids:
        # A run of this name in another sweep of the project is another run: it must not be continued.
        taken = there.get(run.name, (remote.id,))[0] != remote.id
        ids = {f"{run.name}-{remote.id}" if taken else run.name}
    return [
        WandbRunRef(remote.entity, remote.project, id, remote.id, locked=not id.startswith(run.name))
        for id in ids - sent
    ]


def _is_sent(note: dict[str, Any], state: str) -> bool:
    """Whether the server was sent all of a run, or is where all of it came from."""
    return bool(note.get("complete")) or (bool(note.get("sent")) and note.get("state") == state)


def _send(run: Path, target: WandbRunRef, mirrors: list[MirrorClient]) -> str:
    """Send one run directory; return what went wrong, or nothing."""
    state, reason = files.status(run)
    recorded = documents.read_json_or_empty(run / keys.STATE)
    mirror = MirrorClient(target, WAIT_SECONDS)
    mirrors.append(mirror)
    mirror.follow(run)
    arrived = mirror.end(0 if state == "finished" else 1, state, reason, recorded.get("cause", ""))
    return "" if arrived else mirror.error or "the server did not take all of it in time; try again"


if __name__ == "__main__":
    sys.exit(main())

"""What a W&B run contains of a run directory: config, one row an epoch, summary, tables, files."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import wandb
from wandb.errors import Error as WandbError

from finetune.data import thumbnails
from finetune.resolve import recipe_key
from finetune.rundir import files, keys
from finetune.rundir.best_epoch import EpochMetrics, add_best_so_far
from finetune.system import documents
from finetune.system.redaction import redact
from finetune.system.tables import read_table
from finetune.tracking.mirror_client import WandbRunRef

__all__ = ["WandbError", "finish_failed", "finish_finished", "forget", "is_stopped", "open_run", "send_rows"]

FILES = (
    keys.CONFIG,
    keys.HISTORY,
    keys.SUMMARY,
    keys.PREDICTIONS,
    keys.SPLITS,
    keys.THUMBNAILS,
    keys.LOG,
)
# W&B makes each class of a mapping a metric of its own (`test/recall.cat`), and wants fewer than 10,000 in a project
# (docs.wandb.ai/models/track/limits). Beyond this, recalls are in the run's summary.json alone, which is sent as well.
MAX_RECALLS = 1000
FOLDER = "run"  # of the W&B run's files, where those of the run directory lie
SEND_SECONDS = 15.0  # between two transmissions while a run goes on, each one request
STATS_SECONDS = 30.0  # between two samples of the machine's load
INIT_SECONDS = 30.0

# W&B's client would import for each run what no mirror uses: pandas, and W&B Launch (0.6 s together).
wandb.util.pd_available = False
wandb.Run._detect_and_apply_job_inputs = lambda _: None  # type: ignore[assignment, method-assign]


class ClientOptions(NamedTuple):
    """Options of W&B's client.

    Attributes:
        folder: for its files.
        pid: of the process that trains.
        wait_seconds: that finishing the run may take.
        on_stop: called from another thread when the server asks the run to stop.
    """

    folder: Path
    pid: int
    wait_seconds: float
    on_stop: Callable[[], None]


def open_run(run_ref: WandbRunRef, run_dir: Path | None, client: ClientOptions) -> wandb.Run:
    """Create or resume the run on the server.

    Args:
        run_dir: None for a run that ended before it had a directory.

    Raises:
        WandbError: the server can't be reached, or refuses.
    """
    content = files.read_config(run_dir) if run_dir else {}
    provenance = content.pop("provenance", {})
    settings = wandb.Settings(
        sweep_id=run_ref.sweep,
        init_timeout=INIT_SECONDS,
        finish_timeout=max(1.0, client.wait_seconds - 3),
        finish_timeout_raises=True,
        stop_fn=client.on_stop,
        silent=True,
        console="wrap",
        disable_code=True,
        disable_job_creation=True,
        disable_git=True,  # the address of a remote may hold a token; the commit is in the config
        x_stats_pid=client.pid,
        x_stats_sampling_interval=STATS_SECONDS,
    )
    if "WANDB__FILE_STREAM_TRANSMIT_INTERVAL" not in os.environ:
        settings.x_file_stream_transmit_interval = SEND_SECONDS
    run = wandb.init(
        entity=run_ref.entity,
        project=run_ref.project,
        id=run_ref.run,
        resume="allow",
        name=provenance.get("run_id"),
        group=group_of(content, provenance) if content else None,
        job_type="train",
        tags=_tags(content, provenance),
        notes=provenance.get("command"),
        config=None if run_ref.locked else {**content, "provenance": provenance},
        dir=client.folder,
        settings=settings,
    )
    run.define_metric("epoch", hidden=True)
    # `best/...` is the best so far. So its last value, which W&B keeps as the run's own, is what a sweep ranks by; a
    # `summary="max"` would put a mapping {"max": ...} in its place.
    run.define_metric("*", step_metric="epoch", step_sync=False)  # a row of tables is no second row of its epoch
    if content and run_ref.locked:
        _add_config(run, content, provenance)
    return run


def forget() -> None:
    """Clean up W&B's client after a failed attempt to open a run, so that another one can be made."""
    with contextlib.suppress(Exception):  # its process may be gone
        wandb.teardown(exit_code=1)


def is_stopped(run: wandb.Run) -> bool | None:
    """Ask the server whether it wants this run to stop; return None if it has not decided yet.

    Raises:
        ConnectionError: W&B's own process is gone.
    """
    try:
        # No public call returns this at once: the client checks every 15 s, and its agent kills after 30 s.
        api: Any = wandb.Api()
        answer = api._service_api.execute_graphql(
            _STOPPED, {"entity": run.entity, "project": run.project, "run": run.id}
        )
        if answer["project"]["run"]["stopped"]:
            return True
        # In a sweep that stops runs early a server may be slow to say it here: the client's check decides.
        early = run.sweep_id and "early_terminate" in api.sweep(f"{run.entity}/{run.project}/{run.sweep_id}").config
        return None if early else False
    except ConnectionError:
        raise
    except Exception:  # of any kind: the client's own check is still to come
        return None


_STOPPED = """
query RunStoppedStatus($entity: String, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { stopped } }
}"""


def _add_config(run: wandb.Run, config: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Add the resolved config to the sweep's parameters, which are fixed on the server.

    A parameter that resolved to another value (a `gradual` that never unfreezes is `head`) goes under `resolved`.
    """
    swept = dict(run.config)
    resolved = {name: value for name, value in config.items() if name in swept and swept[name] != value}
    added = {name: value for name, value in config.items() if name not in swept}
    added |= {"resolved": resolved, "provenance": provenance}
    run.config.update(added, allow_val_change=True)  # type: ignore[no-untyped-call]


def group_of(config: dict[str, Any], provenance: dict[str, Any]) -> str:
    """Return the group of runs that differ only in seed or fold, whichever version of the project made them."""
    text = recipe_key(config, provenance.get("weights_hash"), ("seed", "fold"))  # a stored format: no split_seed
    return f"{config['strategy']} lr {config['lr']:g} {hashlib.sha256(text.encode()).hexdigest()[:4]}"


def _tags(config: dict[str, Any], provenance: dict[str, Any]) -> list[str] | None:
    """Return strategy, network, data; W&B takes at most 64 characters a tag."""
    if not config:
        return None
    data = f"{Path(str(config['data'])).name} {provenance.get('data_fingerprint', '')[:8]}"
    return [tag[:64] for tag in (config["strategy"], config["backbone"], data)]


def send_rows(run: wandb.Run, run_dir: Path, after: int) -> int:
    """Log the epochs after `after`, each once, and return the last epoch there is.

    The step is the epoch: a row that the server has already is not sent again.
    """
    rows, _ = files.read_history(run_dir)
    config = files.read_config(run_dir)
    last = after
    for row in add_best_so_far(_ordered(rows), config.get("unfreeze") or [(0, 1.0)]):
        if row["epoch"] > after:
            if row["epoch"] >= run.starting_step:
                run.log(row, step=row["epoch"], commit=True)
            last = row["epoch"]
    return last


def _ordered(rows: Iterable[EpochMetrics]) -> list[EpochMetrics]:
    return [row for _, row in sorted({row["epoch"]: row for row in rows if "epoch" in row}.items())]


def finish_finished(run: wandb.Run, run_dir: Path) -> None:
    """Send summary, tables and files of a finished run, and end it.

    Raises:
        TimeoutError: not all of it arrived in time.
    """
    config, summary = files.read_config(run_dir), documents.read_json(run_dir / keys.SUMMARY) or {}
    run.summary.update({**summary_to_send(summary), **({"reason": "", "cause": ""} if run.resumed else {})})
    _send_files(run, run_dir)
    try:  # tables and images come after numbers and files, which a damaged table must not hold back
        run.log(_tables(run_dir, config.get("provenance", {}).get("classes", [])))
        if config.get("upload_best"):
            run.log_artifact(str(run_dir / keys.BEST), name=run_dir.name, type="model")
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        print(f"not all tables of {run_dir} can be sent ({type(error).__name__}: {error})")
    run.finish(exit_code=0)


def summary_to_send(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary, without recalls by class if there are too many for W&B."""
    too_many = len(summary.get("test/recall") or ()) > MAX_RECALLS
    return {key: value for key, value in summary.items() if key != "test/recall" or not too_many}


def finish_failed(run: wandb.Run, code: int, state: str, reason: str, cause: str) -> None:
    """Send how a run ended that did not finish, and end it; for the server, a code other than 0 is a failure.

    Raises:
        TimeoutError: not all of it arrived in time.
    """
    reason = redact(reason)
    run.summary.update({"state": state, "reason": reason, "cause": cause})
    print(reason)
    run.finish(exit_code=code)


def _tables(run_dir: Path, classes: list[str]) -> dict[str, Any]:
    """Return the confusion matrix, and the images of the prediction grid with their predictions."""
    rows = read_table(run_dir / keys.PREDICTIONS)
    classes = list(dict.fromkeys([*classes, *(row[key] for row in rows for key in ("label", "prediction"))]))
    number = {name: index for index, name in enumerate(classes)}
    matrix = wandb.plot.confusion_matrix(
        y_true=[number[row["label"]] for row in rows],
        preds=[number[row["prediction"]] for row in rows],
        class_names=classes,
        title="Test images",
    )
    table = wandb.Table(columns=["picture", "label", "prediction", "confidence", "right", "path"])
    images = thumbnails.read_thumbnails(run_dir)
    for row in rows:
        if (image := images.get(row["path"])) is not None:
            confidence = float(row[keys.PROBABILITY + row["prediction"]])
            is_right = row["label"] == row["prediction"]
            jpeg = wandb.Image(image, file_type="jpg")
            table.add_data(jpeg, row["label"], row["prediction"], confidence, is_right, row["path"])
    return {"test/confusion": matrix, "test/predictions": table}


def _send_files(run: wandb.Run, run_dir: Path) -> None:
    """Upload the files of the run directory under FOLDER, checkpoints left out."""
    folder = Path(run.dir) / FOLDER
    folder.mkdir(exist_ok=True)
    for name in FILES:
        # A link in a run directory that came from elsewhere could name any file of this machine.
        if (run_dir / name).is_file() and not (run_dir / name).is_symlink():
            (folder / name).symlink_to((run_dir / name).resolve())
            run.save(folder / name, base_path=run.dir, policy="end", glob=False)

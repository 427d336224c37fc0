"""Fabricated runs as they look on a W&B server once they were mirrored: put straight into the loopback backend."""

import json
import time
from pathlib import Path
from typing import Any

import yaml

from finetune.rundir import files, keys
from finetune.system import documents
from tests.support.wandb_server.server import Server
from tests.support.wandb_server.store import Run, Sweep, new_id

PROJECT = "finetune-sweeps"
FILES = (
    keys.CONFIG,
    keys.HISTORY,
    keys.SUMMARY,
    keys.PREDICTIONS,
    keys.SPLITS,
    keys.THUMBNAILS,
    keys.LOG,
)
SWEPT = {
    "program": "agent.py",
    "method": "grid",
    "parameters": {"strategy": {"values": ["head", "full"]}, "seed": {"values": [0, 1]}},
}


def put_sweep(server: Server, project: str = PROJECT, spec: dict[str, Any] = SWEPT) -> str:
    """Put a sweep without runs on the server and return its id."""
    with server.store.lock:
        server.store.project(project)
        sweep = Sweep(new_id(), project, yaml.safe_dump(spec), spec)
        server.store.sweeps[sweep.id] = sweep
        return sweep.id


def put_run(
    server: Server,
    sweep: str | None,
    run_dir: Path | None,
    state: str = "finished",
    *,
    swept: dict[str, Any] | None = None,
    names: tuple[str, ...] = FILES,
    job_type: str = "train",
    project: str = PROJECT,
) -> Run:
    """Put a run on the server as mirroring `run_dir` would leave it.

    Args:
        run_dir: None for a run that ended before it knew anything of itself.
        swept: the sweep's own values, which stay what they were before the config was resolved.
        names: which files the mirror had sent before it ended.
    """
    run = Run(new_id(), project, state=state, sweep=sweep, job_type=job_type)
    swept = swept or {}
    run.raw_config = {"_wandb": {"value": {}}, **{name: {"value": value} for name, value in swept.items()}}
    if run_dir is not None:
        config = files.read_config(run_dir)
        resolved = {name: config[name] for name, value in swept.items() if config[name] != value}
        for name, value in {**config, **swept, "resolved": resolved}.items():
            run.raw_config[name] = {"value": value}
        send_history(run, run_dir)
        run.summary |= documents.read_json(run_dir / keys.SUMMARY) or documents.read_json(run_dir / keys.STATE) or {}
        if run.summary.get("state") == "finished":
            put_files(run, run_dir, names)
            # The tables that a finished run logs are a row of the history, too: one without an epoch.
            table = {"_type": "table-file", "path": "media/table/test.json"}
            add_row(run, {"test/predictions": table, "_step": len(run.lines) + 1})
            run.summary["test/predictions"] = table
    with server.store.lock:
        return server.store.add_run(run)


def put_files(run: Run, run_dir: Path, names: tuple[str, ...] = FILES) -> None:
    """Upload the files of a run directory."""
    run.files |= {f"run/{name}": (run_dir / name).read_bytes() for name in names if (run_dir / name).is_file()}


def send_history(run: Run, run_dir: Path) -> None:
    """Send every epoch, each with the best so far, which the server's summary takes over."""
    for row in files.read_history(run_dir)[0]:
        best = {"best/val_accuracy": row["val/accuracy"], "best/epoch": row["epoch"]}
        add_row(run, {**row, **best, "_step": row["epoch"]})
        run.summary |= {**row, **best}


def add_row(run: Run, row: dict[str, Any]) -> None:
    """Log a row the way the client sends it: numbers that are whole arrive without a point."""
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in row.items()
    }
    run.lines[len(run.lines)] = {**whole, "_timestamp": time.time(), "_runtime": 1.0}


def fetched_note(folder: Path, run: Run) -> dict[str, Any]:
    """Return what the fetched run directory notes of the W&B run."""
    (file,) = folder.glob(f"*/wandb-{run.id}.json")
    return dict(json.loads(file.read_text()))

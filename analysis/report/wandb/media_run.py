"""The W&B run that a report's own pictures, table and files belong to: one a sweep, beside the sweep's runs.

It also remembers, in its config, which report shows the sweep, so that any machine renews that one.
"""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.sources.wandb.address import Address
from analysis.tables.schema import COLUMNS
from analysis.report.wandb.blocks import (FIGURES, GRID, TABLE)

if TYPE_CHECKING:
    import wandb

FILES = ("comparison.csv", "report.html", "report.json")
INIT_SECONDS, FINISH_SECONDS = 30.0, 120.0
# What W&B's agent, or the user, has set for the runs of a sweep would make this run one of them.
OF_OTHER_RUNS = ("SWEEP_ID", "SWEEP_PARAM_PATH", "RUN_ID", "RUN_GROUP", "JOB_TYPE", "NAME", "NOTES", "TAGS", "RESUME")
FOLDERS = ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR")


@contextmanager
def isolated_wandb_environment() -> Iterator[None]:
    """Keep W&B's client, within the block, from joining a sweep and from writing anywhere but a folder that goes."""
    before = {name: os.environ.get(name) for name in (f"WANDB_{rest}" for rest in (*OF_OTHER_RUNS, *FOLDERS))}
    with tempfile.TemporaryDirectory(prefix="finetune-wandb-", ignore_cleanup_errors=True) as folder:
        for name in before:
            os.environ.pop(name, None)
        os.environ.update({f"WANDB_{rest}": folder for rest in FOLDERS})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def run_id(sweep: Address) -> str:
    """Return the id of the run, the same for each report of a sweep."""
    return f"analysis-{sweep.sweep}"


@contextmanager
def opened(sweep: Address, name: str) -> "Iterator[wandb.Run]":
    """Open the run, a new one or the one of an earlier report, and end it with the block.

    Args:
        sweep: with entity and project.
        name: of the sweep, for people.
    """
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_job_creation=True,
        disable_git=True,  # the address of a remote may hold a token
        x_disable_stats=True,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        finish_timeout_raises=True,
    )
    run = wandb.init(
        entity=sweep.entity,
        project=sweep.project,
        id=run_id(sweep),
        resume="allow",  # without it, what is logged now would be mixed up with what is there
        name=f"analysis of {name}",
        job_type="analysis",
        config={"sweep": sweep.sweep},
        dir=os.environ["WANDB_DIR"],
        settings=settings,
    )
    try:
        yield run
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            run.finish(exit_code=1)
        raise
    run.finish(exit_code=0)


def media_of(out: Path) -> dict[str, Path]:
    """Return the pictures of a report's folder by the key that they are logged under."""
    figures = {f"{FIGURES}{path.stem}": path for path in sorted((out / "figures").glob("*.png"))}
    grid = out / "prediction_grid.png"
    return ({GRID: grid} if grid.is_file() else {}) | figures


def log(run: "wandb.Run", out: Path, rows: list[dict[str, Any]]) -> None:
    """Send pictures, table and files.

    Args:
        out: the report's folder.
        rows: the comparison, one a strategy, as in report.json.
    """
    import wandb

    table = wandb.Table(columns=list(COLUMNS), data=[[row[name] for name in COLUMNS] for row in rows])
    pictures = {key: wandb.Image(str(path)) for key, path in media_of(out).items()}
    run.log({**pictures, TABLE: table})
    for name in FILES:
        run.save(glob.escape(str(out.resolve() / name)), base_path=out.resolve(), policy="now")

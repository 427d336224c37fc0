"""The W&B run that holds the images, the table and the files of a report: one per sweep, in the sweep's project.

Its config has the address of the sweep's report, so that every machine updates the same report.
"""

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.report.csv_files import records
from analysis.report.wandb.blocks import FIGURES, GRID, TABLE
from analysis.tables.schema import COLUMNS
from finetune.tracking.sweep_address import SweepAddress

if TYPE_CHECKING:
    import wandb

FILES = ("comparison.csv", "report.html", "report.json")
INIT_SECONDS, FINISH_SECONDS = 30.0, 120.0
# Variables that W&B's agent, or the user, sets for the runs of a sweep; they would make this run one of them.
RUN_VARIABLES = ("SWEEP_ID", "SWEEP_PARAM_PATH", "RUN_ID", "RUN_GROUP", "JOB_TYPE", "NAME", "NOTES", "TAGS", "RESUME")
FOLDER_VARIABLES = ("DIR", "DATA_DIR", "CACHE_DIR", "ARTIFACT_DIR")


@contextmanager
def isolated_wandb_environment() -> Iterator[None]:
    """In the block, keep W&B's client from joining a sweep, and let it write only to a temporary folder."""
    before = {name: os.environ.get(name) for name in (f"WANDB_{rest}" for rest in (*RUN_VARIABLES, *FOLDER_VARIABLES))}
    with tempfile.TemporaryDirectory(prefix="finetune-wandb-", ignore_cleanup_errors=True) as folder:
        for name in before:
            os.environ.pop(name, None)
        os.environ.update({f"WANDB_{rest}": folder for rest in FOLDER_VARIABLES})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def run_id(sweep: SweepAddress) -> str:
    """Return the id of the analysis run of a sweep."""
    return f"analysis-{sweep.id}"


@contextmanager
def open_media_run(sweep: SweepAddress, name: str) -> "Iterator[wandb.Run]":
    """Open the analysis run of a sweep, created by the first report, and end it with the block.

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
        resume="allow",  # otherwise new logs would be mixed up with earlier ones
        name=f"analysis of {name}",
        job_type="analysis",
        config={"sweep": sweep.id},
        dir=os.environ["WANDB_DIR"],
        settings=settings,
    )
    try:
        yield run
    except BaseException:
        with suppress(Exception):  # report the first error, not this one
            run.finish(exit_code=1)
        raise
    run.finish(exit_code=0)


def media_files(out: Path) -> dict[str, Path]:
    """Return the images in a report's folder by the key that they are logged under."""
    figures = {f"{FIGURES}{path.stem}": path for path in sorted((out / "figures").glob("*.png"))}
    grid = out / "prediction_grid.png"
    return ({GRID: grid} if grid.is_file() else {}) | figures


def log_media(run: "wandb.Run", out: Path, strategies: pd.DataFrame) -> None:
    """Send images, table and files.

    Args:
        out: the report's folder.
        strategies: see `Comparison.strategies`.
    """
    import wandb

    table = wandb.Table(columns=list(COLUMNS), data=[list(row.values()) for row in records(strategies)])
    images = {key: wandb.Image(str(path)) for key, path in media_files(out).items()}
    run.log({**images, TABLE: table})
    for name in FILES:
        run.save(glob.escape(str(out.resolve() / name)), base_path=out.resolve(), policy="now")

"""Which checkpoints a finished run keeps, by its field `keep`."""

import contextlib
from pathlib import Path

from finetune.config import Config, Keep
from finetune.rundir import keys
from finetune.system.atomic import delete

# An unfinished run needs both best.pt and last.pt: to be tested, and to resume.
KEPT_FILES: dict[Keep, tuple[str, ...]] = {
    "best_last": (keys.BEST, keys.LAST),
    "best": (keys.BEST,),
    "none": (),
    "every": (keys.BEST, keys.LAST),
}


def epoch_file(run_dir: Path, epoch: int) -> Path:
    """Return the file of an epoch's checkpoint (`keep: every`); epochs count from 1."""
    return run_dir / f"epoch-{epoch:04d}.pt"


def epoch_files(run_dir: Path) -> list[Path]:
    """Return the files of single epochs' checkpoints, sorted."""
    return sorted(run_dir.glob("epoch-[0-9]*.pt"))


def checkpoints_left(config: Config) -> int:
    """Return how many checkpoints a finished run of this config keeps; none has the optimizer's state."""
    return len(KEPT_FILES[config.keep]) + (config.epochs if config.keep == "every" else 0)


def delete_unretained_checkpoints(run_dir: Path, keep: Keep) -> None:
    """Delete the weights that a finished run does not keep.

    Raises:
        RunTakenError: another process has taken the run over.
    """
    for name in {keys.BEST, keys.LAST} - set(KEPT_FILES[keep]):
        with contextlib.suppress(OSError):  # it only takes up space
            delete(run_dir / name)

"""Which checkpoints of a run stay, as its field `keep` asks for."""

import contextlib
from pathlib import Path

from finetune.config import Config, Keep
from finetune.rundir import keys

# What stays of best.pt and last.pt once a run is finished. Before, it needs both: to go on, and to be tested.
KEPT_FILES: dict[Keep, tuple[str, ...]] = {
    "best_last": (keys.BEST, keys.LAST),
    "best": (keys.BEST,),
    "none": (),
    "every": (keys.BEST, keys.LAST),
}


def epoch_file(run_dir: Path, epoch: int) -> Path:
    """Return the file for the checkpoint of an epoch, counted from 1, where each is kept."""
    return run_dir / f"epoch-{epoch:04d}.pt"


def epoch_files(run_dir: Path) -> list[Path]:
    """Return the checkpoints of single epochs, sorted."""
    return sorted(run_dir.glob("epoch-[0-9]*.pt"))


def checkpoints_left(config: Config) -> int:
    """Return how many checkpoints a finished run of this config leaves, without the optimiser's state."""
    return len(KEPT_FILES[config.keep]) + (config.epochs if config.keep == "every" else 0)


def delete_unretained_checkpoints(run_dir: Path, keep: Keep) -> None:
    """Delete the weights that a finished run need not keep."""
    for name in {keys.BEST, keys.LAST} - set(KEPT_FILES[keep]):
        with contextlib.suppress(OSError):  # it is in the way of nothing but room
            (run_dir / name).unlink()

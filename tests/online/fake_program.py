"""A program for sweeps in tests: `agent.py` with a stand-in for training that takes milliseconds and no torch.

It leaves what a real run leaves, as far as the mirror looks at it. FAKE_SECONDS is the time of an epoch, FAKE_STEP that
of a step; FAKE_FAIL and FAKE_CRASH (SIGKILL) list seeds whose first attempts end so. FAKE_SAYS is what a run logs,
and the reason of its failure.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from PIL import Image

import agent
from finetune.config import Config, to_dict
from finetune.data import thumbnails
from finetune.errors import DataError, RunInterrupted
from finetune.resolve import resolve, run_id
from finetune.rundir import files, keys
from finetune.rundir.best_epoch import best_row
from finetune.rundir.claim import hold_claim
from finetune.rundir.failures import cause_of
from finetune.sweep.agents.training_api import TrainingApi
from finetune.system import documents
from finetune.system.signals import polling_signals
from finetune.system.tables import write_table

CLASSES = ["cat", "dog"]

logger = logging.getLogger("finetune.tests")


def identify(config: Config) -> tuple[str, str]:
    """Take any name for data but `nowhere`."""
    if config.data.endswith("nowhere"):
        raise DataError(f"{config.data}: no such folder")
    return "fingerprint", f"hash of {config.weights}"


CODE = TrainingApi("tests.online.fake_program:run", [], identify, lambda _: None)


def told(ending: str, config: Config) -> bool:
    """Whether this run shall end so."""
    return str(config.seed) in os.environ.get(f"FAKE_{ending}", "").split(",")


def run(
    config: Config,
    run_dir: Path,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    on_progress: object = None,  # noqa: ARG001
    peers: Sequence[Config] | None = None,
) -> None:
    """Write what a real run writes."""
    config = resolve(config)
    with hold_claim(run_dir) as claim:
        if (run_dir / keys.SUMMARY).exists():
            return
        with (run_dir / "starts.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")
        (run_dir / "gpu.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        documents.write_json(
            run_dir / "peers.json", {"seeds": None if peers is None else [peer.seed for peer in peers]}
        )
        files.write_state(run_dir, "running")
        provenance = {
            "run_id": run_id(config, *identify(config)),
            "classes": CLASSES,
            "data_fingerprint": "fingerprint",
            "weights_hash": f"hash of {config.weights}",
            "git_commit": "c0ffee",
        }
        files.write_config(run_dir, to_dict(config), provenance)
        try:
            with polling_signals():
                _train(config, run_dir, claim.attempt, interrupted)
        except RunInterrupted as error:
            files.write_state(run_dir, "killed", str(error))
            raise
        except Exception as error:
            files.write_state(run_dir, "failed", f"{type(error).__name__}: {error}", cause_of(error))
            raise
        files.write_state(run_dir, "finished")


def accuracy(config: Config) -> float:
    """Return the val accuracy that a run comes to; it depends on the rate and the seed."""
    return round(max(0.0, 0.9 - abs(config.lr - 0.003) * 100) - 0.01 * config.seed, 6)


def _train(config: Config, run_dir: Path, attempt: int, interrupted: Callable[[], bool]) -> None:
    said = os.environ.get("FAKE_SAYS", "")
    logger.info(f"attempt {attempt} of seed {config.seed}{said}")
    rows, _ = files.read_history(run_dir)
    for epoch in range(len(rows) + 1, config.epochs + 1):
        end = time.monotonic() + float(os.environ.get("FAKE_SECONDS", "0.05"))
        while True:
            if interrupted():
                raise RunInterrupted(f"stopped by a signal in epoch {epoch}")
            if time.monotonic() > end:
                break
            time.sleep(float(os.environ.get("FAKE_STEP", "0.02")))
        if attempt == 1 and told("CRASH", config):
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt == 1 and told("FAIL", config):
            raise ValueError(f"told to fail{said}")
        value = accuracy(config) * epoch / config.epochs
        row = {"epoch": epoch, "train/loss": 2.0 - value, "train/accuracy": value, "val/loss": 1.5 - value}
        row |= {"val/accuracy": value, "lr/head": config.lr, "lr/backbone": 0.0, "trainable_share": 0.0}
        files.append_history(run_dir, {**row, "epoch_seconds": 1.0, "seconds/suffix": 0.5})
        logger.info(f"epoch {epoch}")
        if (run_dir / keys.STOP).exists():
            break
    _finish(config, run_dir)


def _finish(config: Config, run_dir: Path) -> None:
    rows, _ = files.read_history(run_dir)
    answers = [["test/cat/1.jpg", "cat", "cat", 0.75, 0.25], ["test/dog/1.jpg", "dog", "cat", 0.625, 0.375]]
    columns = ["path", "label", "prediction", *(keys.PROBABILITY + name for name in CLASSES)]
    write_table(run_dir / keys.PREDICTIONS, columns, answers)
    for path, *_ in answers:
        (run_dir / "pictures" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (40, 90, 200)).save(run_dir / "pictures" / path)
    thumbnails.write_thumbnails(run_dir, run_dir / "pictures", CLASSES)
    write_table(run_dir / keys.SPLITS, ["path", "label", "split"], [["test/cat/1.jpg", "cat", "test"]])
    best = best_row(rows)
    numbers = dict.fromkeys((key for key in keys.SUMMARY_KEYS if key not in ("state", "test/recall")), 1.0)
    summary = {
        **numbers,
        "state": "finished",
        "best/epoch": best["epoch"],
        "best/val_accuracy": best["val/accuracy"],
        "best/val_loss": best["val/loss"],
        "test/accuracy": accuracy(config),
        "test/recall": {"cat": 1.0, "dog": 0.0, "a.b/c d": 0.5},
        "epochs": len(rows),
        "epochs_to_80": None,
    }
    documents.write_json(run_dir / keys.SUMMARY, summary)


if __name__ == "__main__":
    sys.modules["tests.online.fake_program"] = sys.modules["__main__"]
    sys.exit(agent.main(None, CODE))

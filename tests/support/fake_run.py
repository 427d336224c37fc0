"""A stand-in for `finetune.run.run.run`: claims, keeps history, ends as it is told, in milliseconds and without torch.

FAKE_SECONDS is the time of an epoch; FAKE_<ENDING> lists seeds whose runs fail, diverge, crash (SIGKILL), are refused
or hang, find the disk full, are greedy (of memory), or are slow (a second at the start).
"""

import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.config import Config, to_dict
from finetune.errors import DataError, DivergedError, RunInterrupted
from finetune.rundir import files, keys
from finetune.rundir.claim import hold_claim
from finetune.rundir.failures import cause_of
from finetune.system import documents, signals


def told(ending: str, config: Config) -> bool:
    """Whether this run shall end so."""
    return str(config.seed) in os.environ.get(f"FAKE_{ending}", "").split(",")


OnProgress = Callable[[dict[str, Any]], None]


def run(
    config: Config,
    run_dir: Path,
    *,
    on_progress: OnProgress,
    interrupted: Callable[[], bool],
    peers: Sequence[Config] | None,
) -> None:
    """Write what a real run writes, as far as agents look at it."""
    if told("REFUSE", config):
        raise DataError("no images here")
    with hold_claim(run_dir) as claim:
        if (run_dir / keys.SUMMARY).exists():
            return
        with (run_dir / "starts.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")
        score = Path("/proc/self/oom_score_adj")
        if score.exists():
            (run_dir / "oom_score.txt").write_text(score.read_text())
        documents.write_json(
            run_dir / "peers.json", {"seeds": None if peers is None else [peer.seed for peer in peers]}
        )
        files.write_state(run_dir, "running")
        files.write_config(run_dir, to_dict(config), {"data_fingerprint": f"fingerprint of {config.data}"})
        try:
            with signals.polling_signals():
                _train(config, run_dir, claim.attempt, on_progress, interrupted)
        except RunInterrupted as error:
            files.write_state(run_dir, "killed", str(error))
            raise
        except Exception as error:
            files.write_state(run_dir, "failed", f"{type(error).__name__}: {error}", cause_of(error))
            raise


def _train(
    config: Config, run_dir: Path, attempt: int, on_progress: OnProgress, interrupted: Callable[[], bool]
) -> None:
    print(f"attempt {attempt}")
    if told("SLOW", config):
        time.sleep(1)
    # Some value that depends on the rate, so that a search has something to learn.
    value = max(0.0, 1 - abs(config.lr - 0.003) * 100)
    rows, _ = files.read_history(run_dir)
    for epoch in range(len(rows) + 1, config.epochs + 1):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0.02")))
        if told("CRASH", config) and attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if told("FAIL", config) and attempt == 1:
            raise ValueError("told to fail")
        if told("FULL", config):
            raise OSError(errno.ENOSPC, "No space left on device", "last.pt")
        if told("GREEDY", config):
            limits = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2**31, limits[1]))
            bytearray(2**32)
        if told("DIVERGE", config):
            raise DivergedError("the loss is nan")
        if told("HANG", config):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("hangs")
            time.sleep(600)
        files.append_history(run_dir, {"epoch": epoch, "val/accuracy": value * epoch / config.epochs})
        on_progress({"phase": "train", "epoch": float(epoch), "epochs": config.epochs, "val_accuracy": value})
        if interrupted():
            raise RunInterrupted(f"stopped after epoch {epoch}")
        if (run_dir / keys.STOP).exists():
            break
    rows, _ = files.read_history(run_dir)
    summary = {
        "state": "finished",
        "best/val_accuracy": value,
        "best/val_loss": 1 - value,
        "test/accuracy": value,
        "epochs": len(rows),
    }
    documents.write_json(run_dir / keys.SUMMARY, summary)

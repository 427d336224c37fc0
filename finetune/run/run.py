"""One run, from a config to a finished run directory: the table of contents of this package.

preflight     data, splits, weights          -> what the run is called
claim         nobody else runs it
model         network, blocks, new head
strategies    param groups, rates, what trains when
feed          pictures, or what the frozen part makes of them (activations), from caches or computed
train         epochs, val, checkpoints
evaluate      test, once, at the epoch that val chose
record        the files that are left behind
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finetune.config import Config, to_dict
from finetune.data.splits import Splits
from finetune.errors import RunInterrupted
from finetune.resolve import resolve, run_id
from finetune.run.build import RunComponents, build_components, make_batch_source
from finetune.run.checkpoint import save_checkpoint
from finetune.run.finish import finish
from finetune.run.memory_check import check_largest_stage_fits
from finetune.run.preflight import fingerprint_inputs
from finetune.run.provenance import provenance
from finetune.run.resume import check_directory, resume
from finetune.rundir import files, keys, retention, stop_request
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.rundir.claim import Claim, RunTakenError, hold_claim
from finetune.rundir.failures import cause_of
from finetune.rundir.integrity import quarantine_damaged
from finetune.system import signals
from finetune.system.checksums import quarantine
from finetune.system.tables import write_table
from finetune.training import state
from finetune.training.loop import TrainCallbacks, fit
from finetune.training.metering import energy_meter, keep_freed_memory

logger = logging.getLogger(__name__)

OnProgress = Callable[[dict[str, Any]], None]


class RunCallbacks(NamedTuple):
    """Whom a run tells and asks, and what it is told; see `run`."""

    on_progress: OnProgress | None
    interrupted: Callable[[], bool]
    peers: Sequence[Config] | None


def run(
    config: Config,
    run_dir: Path,
    *,
    on_progress: OnProgress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    peers: Sequence[Config] | None = (),
) -> None:
    """Run `config` in `run_dir`, from its last checkpoint if there is one; a finished run is left as it is.

    Files in there that are damaged are set aside and made anew (see resume.py and integrity.py).

    Args:
        on_progress: called often with phase (cache, train, val, test), epoch (finished, such as 2.35), epochs,
            val_accuracy, and in phase cache the share that is filled (None while another run fills it).
        interrupted: asked after each step; true has the run save and end, to go on from that step later. Meanwhile
            a first signal is only noted (see signals.py).
        peers: the configs of runs that are still to do and may use what this one caches, such as those of a sweep; None
            if there are some that are not known. Decides what `cache: auto` keeps. A run that is among them has been
            checked by whoever lists it.

    Raises:
        UserError: data, weights or directory do not fit; nothing was written.
        RunTakenError: another process runs this run.
        TrainingError: the loss is not finite, or the memory too small.
        WriteError: a file can't be written; what was written before is whole.
        Interrupted: as asked; all that was computed is saved.
    """
    config = resolve(config)
    data_fingerprint, weights_hash = fingerprint_inputs(config, checked=config in (peers or ()))
    name = run_id(config, data_fingerprint, weights_hash)
    damaged = check_directory(run_dir, name)
    with hold_claim(run_dir) as claim:
        if damaged:
            if (run_dir / keys.SUMMARY).exists():  # with it the run would be finished, and nothing written anew
                quarantine(run_dir / keys.SUMMARY)
            logger.info(
                f"{keys.CONFIG} is damaged: set aside as {quarantine(run_dir / keys.CONFIG).name}; written anew"
            )
        if quarantine_damaged(run_dir):
            return
        try:
            files.write_state(run_dir, "running")
            asked = RunCallbacks(on_progress, interrupted, peers)
            _run(config, run_dir, name, (data_fingerprint, weights_hash), claim, asked)
            _note(run_dir, "finished", "")  # which the summary says already
        except RunTakenError:
            raise  # the state is the new owner's to tell
        except RunInterrupted as error:
            _note(run_dir, "killed", f"{error}; the same command goes on from there")
            raise
        except (KeyboardInterrupt, SystemExit):
            _note(run_dir, "killed", "stopped by a signal; the same command goes on from the last checkpoint")
            raise
        except Exception as error:
            _note(run_dir, "failed", f"{type(error).__name__}: {error}", cause_of(error))
            raise


def _note(run_dir: Path, state: str, reason: str, cause: str = "") -> None:
    """Note how the run ended, if that can be written: what ended it is told in any case, a full disk perhaps."""
    with contextlib.suppress(OSError):
        files.write_state(run_dir, state, reason, cause)


def _run(
    config: Config,
    run_dir: Path,
    name: str,
    identity: tuple[str, str],
    claim: Claim,
    asked: RunCallbacks,
) -> None:
    started = time.monotonic()
    keep_freed_memory()
    parts = build_components(config, name, asked.peers)
    made = provenance(config, parts.splits, len(parts.model.blocks), parts.loop.device, identity)
    joules, made["energy"] = energy_meter(parts.loop.device)
    made = {"run_id": name, "sweep": run_dir.resolve().parent.name, **made}
    files.write_config(run_dir, parts.about["config"], made)
    write_table(run_dir / keys.SPLITS, ["path", "label", "split"], parts.splits.rows())
    for line in _introduction(parts, name, claim.attempt):
        logger.info(line)

    standing = resume(run_dir, parts)
    history = standing.history
    before = sum(row["epoch_seconds"] for row in history) + sum(standing.epoch.clock.spent().values())
    if history or standing.epoch.steps:
        logger.info(
            f"resumes after epoch {len(history)}" + (f", step {standing.epoch.steps}" if standing.epoch.steps else "")
        )
    files.write_history(run_dir, history)
    standing.rehearsed = check_largest_stage_fits(parts, len(history))
    latest = {"val_accuracy": history[-1]["val/accuracy"] if history else None}

    def tell(phase: str, done: float, **more: Any) -> None:
        if asked.on_progress is not None:
            asked.on_progress({"phase": phase, "epoch": done, "epochs": config.epochs, **latest, **more})

    def save_last(optimizer: torch.optim.Optimizer | None = parts.optimizer) -> None:
        under_way = state.to_checkpoint(standing.epoch, parts.loop.device) if standing.epoch.steps else None
        uses = [[*need, count] for need, count in parts.uses.items()]
        more = {"micro_batch": standing.micro_batch, "under_way": under_way, "uses": uses}
        last, previous = run_dir / keys.LAST, run_dir / keys.PREVIOUS
        save_checkpoint(last, parts.model, optimizer, history, parts.about, previous, **more)

    def save_epoch() -> bool:
        claim.beat()
        if config.keep == "every":
            save_checkpoint(retention.epoch_file(run_dir, len(history)), parts.model, None, history, parts.about)
        save_last()
        if best_row(history) is history[-1]:  # after the last one, from which it can be made should this not be reached
            save_checkpoint(run_dir / keys.BEST, parts.model, None, history, parts.about)
        files.append_history(run_dir, history[-1])
        latest["val_accuracy"] = history[-1]["val/accuracy"]
        logger.info(_epoch_line(history[-1], config.epochs))
        return stop_request.ends_run(run_dir, len(history))

    alone = asked.peers is not None and len(asked.peers) < 2
    on_fill = lambda share: tell("cache", len(history), share=share)  # noqa: E731
    feed = make_batch_source(parts, identity[0], alone, asked.interrupted, on_fill)
    with signals.polling_signals():
        try:
            fit(
                parts.loop, parts.model, parts.prefix, parts.optimizer, feed, standing,
                TrainCallbacks(save_epoch, tell, asked.interrupted, joules.poll),
            )  # fmt: skip
        except RunInterrupted:
            claim.beat()
            save_last()
            raise
        save_last(optimizer=None)  # the optimiser is twice the network's size and of no more use
        tell("test", len(history))
        wall_seconds = lambda: before + time.monotonic() - started  # noqa: E731
        finish(run_dir, parts, feed, standing, asked.interrupted, wall_seconds)
        retention.delete_unretained_checkpoints(run_dir, config.keep)


def _introduction(parts: RunComponents, name: str, attempt: int) -> list[str]:
    config, splits, loop = parts.config, parts.splits, parts.loop
    sizes = f"{len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test"
    set_fields = ", ".join(f"{field} {value}" for field, value in to_dict(config).items())
    arithmetic = "bf16" if loop.autocast else "fp32"
    return [
        f"run {name}, attempt {attempt}, on {loop.device} in {arithmetic}, {torch.get_num_threads()} threads",
        f"pictures of {len(splits.classes)} classes: {sizes}",
        *splits.how,
        *_of_classes(splits, config.balance),
        f"config: {set_fields}",
        f"{len(parts.model.blocks)} backbone blocks; unfreezes {loop.schedule.steps}",
    ]


def _of_classes(splits: Splits, balance: str) -> list[str]:
    """Return a line on the classes' sizes where they differ, and on what is done about it."""
    sizes = Counter(picture.label for picture in splits.train).most_common()
    (most, many), (least, few) = sizes[0], sizes[-1]
    if many == few:
        return []
    smallest, largest = f"{few} of {splits.classes[least]}", f"{many} of {splits.classes[most]}"
    return [f"training pictures a class: from {smallest} to {largest}; balance {balance}"]


def _epoch_line(row: EpochMetrics, epochs: int) -> str:
    loading = row["seconds/loader"] / row["epoch_seconds"] if row["epoch_seconds"] else 0.0
    return (
        f"epoch {row['epoch']}/{epochs}  train {row['train/loss']:.3f} {row['train/accuracy']:.1%}  "
        f"val {row['val/loss']:.3f} {row['val/accuracy']:.1%} macro-F1 {row['val/macro_f1']:.1%}  "
        f"rates {row['lr/head']:.2g} {row['lr/backbone']:.2g}  "
        f"trains {row['trainable_share']:.0%} of the backbone  {row['epoch_seconds']:.1f} s, "
        f"{loading:.0%} of it waiting for pictures"
    )

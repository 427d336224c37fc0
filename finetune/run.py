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
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finetune import epoch, record, showcase, signals, strategies, weights
from finetune.activations import Activations
from finetune.best import Row, best_row
from finetune.causes import cause_of
from finetune.checkpoint import describe, load_checkpoint, save_checkpoint
from finetune.claim import Claim, TakenError, claimed
from finetune.clock import Clock
from finetune.config import Config, resolve, run_id, to_dict
from finetune.data import catalog
from finetune.data.loading import Batches, stream_seed
from finetune.data.pixels import Pixels, build_pixels
from finetune.data.splits import Splits
from finetune.data.transforms import Preprocessing, preprocessing
from finetune.errors import Interrupted, UserError
from finetune.evaluate import accuracy, cross_entropy, macro_f1, predict
from finetune.feed import Feed
from finetune.frozen import FrozenPrefix
from finetune.memory import keep_freed_memory, peak_memory_mb
from finetune.model import Classifier, build_classifier, build_network, forward_flops
from finetune.preflight import identify, split
from finetune.provenance import provenance
from finetune.sharing import Need, shared_needs
from finetune.train import Calls, Loop, Standing, fit

OnProgress = Callable[[dict[str, Any]], None]


class Asked(NamedTuple):
    """Whom a run tells and asks, and what it is told; see `run`."""

    on_progress: OnProgress | None
    log: Callable[[str], None]
    interrupted: Callable[[], bool]
    peers: Sequence[Config] | None


@dataclass(frozen=True)
class Parts:
    """What a run is made of, once everything is built."""

    config: Config
    splits: Splits
    to: Preprocessing
    model: Classifier
    prefix: FrozenPrefix
    uses: Counter[Need]  # how often this run and its peers use which activations
    optimizer: torch.optim.Optimizer
    loop: Loop
    flops: list[int]
    about: dict[str, Any]  # what its checkpoints say of themselves


def run(
    config: Config,
    run_dir: Path,
    *,
    on_progress: OnProgress | None = None,
    log: Callable[[str], None] = print,
    interrupted: Callable[[], bool] = lambda: False,
    peers: Sequence[Config] | None = (),
) -> None:
    """Run `config` in `run_dir`, from its last checkpoint if there is one; a finished run is left as it is.

    Args:
        on_progress: called often with phase (train, val, test), epoch (finished, such as 2.35), epochs, val_accuracy.
        log: called with each line for the run's log.
        interrupted: asked after each step; true has the run save and end, to go on from that step later. Meanwhile
            a first signal is only noted (see signals.py).
        peers: the configs of runs that are still to do and may use what this one caches, such as those of a sweep; None
            if there are some that are not known. Decides what `cache: auto` keeps.

    Raises:
        UserError: data, weights or directory do not fit; nothing was written.
        TakenError: another process runs this run.
        TrainingError: the loss is not finite, or the memory too small.
        Interrupted: as asked; all that was computed is saved.
    """
    config = resolve(config)
    data_fingerprint, weights_hash = identify(config)
    name = run_id(config, data_fingerprint, weights_hash)
    _check_directory(run_dir, name)
    with claimed(run_dir) as claim:
        if (run_dir / record.SUMMARY).exists():
            return
        try:
            record.write_state(run_dir, "running")
            asked = Asked(on_progress, log, interrupted, peers)
            _run(config, run_dir, name, (data_fingerprint, weights_hash), claim, asked)
            record.write_state(run_dir, "finished")
        except TakenError:
            raise  # the state is the new owner's to tell
        except Interrupted as error:
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
        record.write_state(run_dir, state, reason, cause)


def _run(
    config: Config,
    run_dir: Path,
    name: str,
    identity: tuple[str, str],
    claim: Claim,
    asked: Asked,
) -> None:
    keep_freed_memory()
    parts = _build(config, name, asked.peers)
    made = provenance(config, parts.splits, len(parts.model.blocks), parts.loop.device, identity)
    made = {"run_id": name, "sweep": run_dir.resolve().parent.name, **made}
    record.write_config(run_dir, parts.about["config"], made)
    record.write_table(run_dir / record.SPLITS, ["path", "label", "split"], parts.splits.rows())
    log = asked.log
    for line in _introduction(parts, name, claim.attempt):
        log(line)

    standing = _resume(run_dir, parts)
    history = standing.history
    if history or standing.epoch.steps:
        log(f"resumes after epoch {len(history)}" + (f", step {standing.epoch.steps}" if standing.epoch.steps else ""))
    record.write_history(run_dir, history)
    latest = {"val_accuracy": history[-1]["val/accuracy"] if history else None}

    def tell(phase: str, done: float, **more: Any) -> None:
        if asked.on_progress is not None:
            asked.on_progress({"phase": phase, "epoch": done, "epochs": config.epochs, **latest, **more})

    def save_last(optimizer: torch.optim.Optimizer | None = parts.optimizer) -> None:
        under_way = epoch.keep(standing.epoch, parts.loop.device) if standing.epoch.steps else None
        more = {"micro_batch": standing.micro_batch, "under_way": under_way}
        save_checkpoint(run_dir / record.LAST, parts.model, optimizer, history, parts.about, **more)

    def save_epoch() -> bool:
        claim.beat()
        if best_row(history) is history[-1]:
            save_checkpoint(run_dir / record.BEST, parts.model, None, history, parts.about)
        save_last()
        record.append_history(run_dir, history[-1])
        latest["val_accuracy"] = history[-1]["val/accuracy"]
        log(_epoch_line(history[-1], config.epochs))
        return (run_dir / record.STOP).exists()

    feed = _feed(parts, identity[0], asked, lambda share: tell("cache", len(history), share=share))
    with signals.polled():
        try:
            fit(
                parts.loop, parts.model, parts.prefix, parts.optimizer, feed, standing,
                Calls(save_epoch, tell, asked.interrupted, log),
            )  # fmt: skip
        except Interrupted:
            claim.beat()
            save_last()
            raise
        save_last(optimizer=None)  # the optimiser is twice the network's size and of no more use
        tell("test", len(history))
        _finish(run_dir, parts, feed, standing, asked.interrupted, log)


def _feed(parts: Parts, fingerprint: str, asked: Asked, on_fill: Callable[[float | None], None]) -> Feed:
    """Return what feeds training, val and test."""
    config, splits, to, device = parts.config, parts.splits, parts.to, parts.loop.device
    by_name = {name: getattr(splits, name) for name in ("train", "val", "test")}
    activations = Activations(
        prefix=parts.prefix,
        blocks=len(parts.model.blocks),
        to=to,
        device=device,
        splits=by_name,
        origin={"data": fingerprint, "augment": config.augment, "backbone": config.backbone},
        uses=parts.uses,
        mode=config.cache,
        log=asked.log,
        interrupted=asked.interrupted,
        on_progress=on_fill,
    )
    workers = config.loader_workers
    if workers is None:
        # On the CPU the network is the slower part, and loader processes would only take cores away from it.
        workers = 0 if device.type == "cpu" else min(8, max(1, (os.cpu_count() or 2) - 1))

    def open_pixels(split: str) -> Pixels | None:
        if config.cache == "off" or (config.cache == "auto" and config.epochs == 1 and asked.peers == ()):
            return None  # or each picture is looked at once
        return build_pixels(
            splits.root,
            by_name[split],
            to,
            fingerprint,
            threads=torch.get_num_threads(),
            log=asked.log,
            on_progress=lambda done, total: on_fill(done / total),
            on_wait=lambda: on_fill(None),
            interrupted=asked.interrupted,
        )

    return Feed(config, splits, to, device, activations, open_pixels, workers)


def _build(config: Config, name: str, peers: Sequence[Config] | None) -> Parts:
    """Build everything from the config; the same config gives the same parts, initial weights included."""
    splits = split(catalog.locate(config.data), config.split_seed)
    to = preprocessing(config.backbone, config.weights, config.image_px)
    torch.manual_seed(stream_seed(config.seed, "init"))
    network = build_network(config.backbone, to.crop_px)
    if config.weights != "none":
        weights.load_weights(network, config.backbone, config.weights, to.crop_px)
    model = build_classifier(network, len(splits.classes), config.dropout)
    flops = forward_flops(model, to.crop_px)
    device = _device(config.device)
    model = model.to(device).to(memory_format=torch.channels_last)
    groups = strategies.param_groups(model, config.lr, config.backbone_lr, config.block_decay, config.weight_decay)
    schedule = config.unfreeze
    assert schedule is not None, "resolve() fills the schedule"
    steps = len(Batches(len(splits.train), config.batch_size, config.seed))
    loop = Loop(
        schedule=schedule,
        epochs=config.epochs,
        multiplier=strategies.rates(
            len(model.blocks), schedule, steps, config.epochs, config.warmup_epochs, config.rewarm_epochs
        ),
        label_smoothing=config.label_smoothing,
        patience=config.patience,
        device=device,
        autocast=_autocast(config.precision, device),
        seed=config.seed,
    )
    uses = shared_needs(config, peers, len(model.blocks))
    prefix = FrozenPrefix(model, max((need.cut for need in uses), default=0))
    fields = to_dict(config.model_copy(update={"image_px": to.crop_px}))
    optimizer = torch.optim.AdamW(groups, fused=True)  # one kernel, not a loop over parameters
    return Parts(
        config, splits, to, model, prefix, uses, optimizer, loop, flops, describe(name, fields, splits.classes, to)
    )


def _resume(run_dir: Path, parts: Parts) -> Standing:
    """Load the last checkpoint, if there is one, and return how far training had come."""
    if not (run_dir / record.LAST).exists():
        return Standing()
    content = load_checkpoint(run_dir / record.LAST)
    parts.model.load_state_dict(content["model"])
    if "optimizer" in content:  # absent once training is over and only the test is missing
        parts.optimizer.load_state_dict(content["optimizer"])
    standing = Standing(list(content["history"]), micro_batch=content.get("micro_batch"))
    if content.get("under_way") is not None:
        standing.epoch = epoch.restore(content["under_way"], parts.loop.device)
    return standing


def _finish(
    run_dir: Path,
    parts: Parts,
    feed: Feed,
    standing: Standing,
    interrupted: Callable[[], bool],
    log: Callable[[str], None],
) -> None:
    """Test at the epoch that val chose, and write predictions and summary."""

    def on_batch() -> None:
        if interrupted():
            raise Interrupted("stopped in the test")

    best = best_row(standing.history)
    parts.model.load_state_dict(load_checkpoint(run_dir / record.BEST)["model"])
    test = feed.test(_cut(parts, best["epoch"] - 1), Clock())
    scores, labels = predict(parts.model, test, parts.loop.device, parts.loop.autocast, on_batch, log)
    classes = parts.splits.classes
    columns = ["path", "label", "prediction", *(record.PROBABILITY + name for name in classes)]
    rows = (
        [picture.path, classes[picture.label], classes[row.argmax()], *(f"{p:.6g}" for p in row)]
        for picture, row in zip(parts.splits.test, torch.from_numpy(scores).exp().numpy(), strict=True)
    )
    record.write_table(run_dir / record.PREDICTIONS, columns, rows)
    showcase.write_thumbnails(run_dir, parts.splits.root, classes)
    summary = {
        "state": "finished",
        "best/epoch": best["epoch"],
        "best/val_accuracy": best["val/accuracy"],
        "best/val_loss": best["val/loss"],
        "test/accuracy": accuracy(scores, labels),
        "test/macro_f1": macro_f1(scores, labels),
        "test/loss": cross_entropy(scores, labels),
        "micro_batch": min(standing.micro_batch or parts.config.batch_size, parts.config.batch_size),
        **_costs(parts, standing.history),
    }
    record.write_json(run_dir / record.SUMMARY, summary)
    log(
        f"finished: best val {best['val/accuracy']:.1%} after epoch {best['epoch']}, "
        f"test {summary['test/accuracy']:.1%}, macro-F1 {summary['test/macro_f1']:.3f}"
    )


def _costs(parts: Parts, history: list[Row]) -> Row:
    """Return the summary's costs and sizes (see record.SUMMARY_KEYS)."""
    blocks, images = parts.model.blocks, len(parts.splits.train)
    trainable = [len(blocks) - _cut(parts, epoch) for epoch in range(len(history))]
    training = sum(row[f"seconds/{part}"] for row in history for part in ("loader", "prefix", "suffix"))
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in blocks]
    head = sum(parameter.numel() for parameter in parts.model.head.parameters())
    epochs, count = len(history), len(blocks)
    cost = sum(strategies.training_flops(parts.flops, number) for number in trainable)
    frozen = [count - number for number in trainable]
    return {
        "epochs": epochs,
        "epochs_to_80": next((row["epoch"] for row in history if row["val/accuracy"] >= 0.8), None),
        "train_seconds": sum(row["epoch_seconds"] for row in history),
        "cache_seconds": sum(row["seconds/cache"] for row in history),
        "images_per_second": images * epochs / training,
        "peak_memory_mb": peak_memory_mb(parts.loop.device),
        "trainable_parameters": head + sum(sizes[count - trainable[-1] :]),
        "total_parameters": head + sum(sizes),
        "train_gflops": cost * images / 1e9,
        "full_gflops": epochs * strategies.training_flops(parts.flops, count) * images / 1e9,
        "frozen/block_share": sum(frozen) / (epochs * count),
        "frozen/parameter_share": sum(sum(sizes[:cut]) for cut in frozen) / (epochs * sum(sizes)),
        "frozen/flop_share": sum(sum(parts.flops[:cut]) for cut in frozen) / (epochs * sum(parts.flops)),
    }


def _cut(parts: Parts, epoch: int) -> int:
    """Return how many blocks are frozen once `epoch` epochs are finished."""
    count = len(parts.model.blocks)
    return count - strategies.trainable_blocks(strategies.share_at(parts.loop.schedule, epoch), count)


def _check_directory(run_dir: Path, name: str) -> None:
    """Refuse a directory that holds another run, or something else."""
    if record.is_run_dir(run_dir):
        other = record.read_config(run_dir).get("provenance", {}).get("run_id")
        if other != name:
            raise UserError(f"{run_dir} holds the run {other}, and this one is {name}. Give another --run-dir")


def _device(wanted: str) -> torch.device:
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Return bfloat16 if asked for, or if `auto` and on a GPU that computes in it."""
    helps = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and helps) else None


def _introduction(parts: Parts, name: str, attempt: int) -> list[str]:
    config, splits, loop = parts.config, parts.splits, parts.loop
    sizes = f"{len(splits.train)} train, {len(splits.val)} val, {len(splits.test)} test"
    set_fields = ", ".join(f"{field} {value}" for field, value in to_dict(config).items())
    arithmetic = "bf16" if loop.autocast else "fp32"
    return [
        f"run {name}, attempt {attempt}, on {loop.device} in {arithmetic}, {torch.get_num_threads()} threads",
        f"pictures of {len(splits.classes)} classes: {sizes}",
        *splits.how,
        f"config: {set_fields}",
        f"{len(parts.model.blocks)} backbone blocks; unfreezes {loop.schedule}",
    ]


def _epoch_line(row: Row, epochs: int) -> str:
    return (
        f"epoch {row['epoch']}/{epochs}  train {row['train/loss']:.3f} {row['train/accuracy']:.1%}  "
        f"val {row['val/loss']:.3f} {row['val/accuracy']:.1%}  rates {row['lr/head']:.2g} {row['lr/backbone']:.2g}  "
        f"trains {row['trainable_share']:.0%} of the backbone  {row['epoch_seconds']:.1f} s"
    )

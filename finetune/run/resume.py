"""What a run goes on from: its newest checkpoint that is whole. What is damaged is set aside, said, and made anew."""

import contextlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from finetune.cache.reuse import ActivationKey
from finetune.errors import CorruptFileError, UserError
from finetune.run.build import RunComponents
from finetune.run.checkpoint import load_checkpoint, save_checkpoint
from finetune.rundir import files, keys, stop_request
from finetune.rundir.best_epoch import EpochMetrics, best_row
from finetune.system.atomic import delete
from finetune.system.checksums import quarantine
from finetune.training import state
from finetune.training.loop import TrainState

logger = logging.getLogger(__name__)

Content = dict[str, Any]

_INSTEAD = {keys.LAST: f"goes on from {keys.PREVIOUS}", keys.PREVIOUS: "begins anew"}


def resume(run_dir: Path, parts: RunComponents) -> TrainState:
    """Load the newest checkpoint that can be gone on from, if there is one, and return how far training had come.

    Raises:
        UserError: the checkpoint is of another run, or can't be read now.
    """
    content = _newest(run_dir, parts)
    if content is not None and not _ensure_best_checkpoint(run_dir, parts, content["history"]):
        logger.info(f"no checkpoint has the weights of the epoch that val chose, as {keys.BEST} should: begins anew")
        for name in (keys.LAST, keys.PREVIOUS):
            delete(run_dir / name)
        content = None
    history = [] if content is None else list(content["history"])
    _compare_history(run_dir, history)
    if content is None:
        return TrainState()
    parts.model.load_state_dict(content["model"])
    over = "optimizer" not in content  # it is left out once training is over, and only the test is missing
    if not over:
        parts.optimizer.load_state_dict(content["optimizer"])
    standing = TrainState(history, micro_batch=content.get("micro_batch"), over=over)
    if content.get("under_way") is not None:
        standing.epoch = state.from_checkpoint(content["under_way"], parts.loop.device)
    elif history and stop_request.is_requested(run_dir, len(history)) and not _best_is_newer_than(run_dir, history):
        standing.over = True  # it was asked for before the run was killed, or since
    _restore_use_counts(parts.uses, content)
    return standing


def _best_is_newer_than(run_dir: Path, history: list[EpochMetrics]) -> bool:
    """Whether best.pt is of a later epoch than these: the run goes on from before it, and has to get there again."""
    path = run_dir / keys.BEST
    return path.exists() and len(load_checkpoint(path)["history"]) > len(history)


def _restore_use_counts(uses: Counter[ActivationKey], content: Content) -> None:
    """Have what is cached, and so rounded to float16, decided as where the run began: its peers may be done by now."""
    for *need, count in content.get("uses", ()):
        if ActivationKey(*need) in uses:
            uses[ActivationKey(*need)] = count


def check_directory(run_dir: Path, name: str) -> bool:
    """Refuse a directory that holds another run, and return whether its config.yaml is damaged.

    Where that file can't be read, or names another run, a checkpoint that is whole says which run this is.

    Raises:
        UserError: it holds another run, or nothing tells which.
    """
    if not files.is_run_dir(run_dir):
        return False
    try:
        other = files.read_config(run_dir).get("provenance", {}).get("run_id")
    except ValueError:
        other = None
    if other == name:
        return False
    witness = _run_of_checkpoints(run_dir)
    if witness == name:
        return True
    if other is None and witness is None:
        if not (run_dir / keys.SUMMARY).exists():  # nothing that could be lost
            return True
        raise UserError(
            f"{run_dir / keys.CONFIG} is damaged, and no checkpoint tells which run this is. Give another --run-dir"
        )
    raise UserError(f"{run_dir} holds the run {witness or other}, and this one is {name}. Give another --run-dir")


def _run_of_checkpoints(run_dir: Path) -> str | None:
    for name in (keys.LAST, keys.PREVIOUS, keys.BEST):
        with contextlib.suppress(UserError):
            return str(load_checkpoint(run_dir / name)["run_id"])
    return None


def _newest(run_dir: Path, parts: RunComponents) -> Content | None:
    """Return the last checkpoint or, should that be damaged, the one before it, or None where neither is there."""
    for name, instead in _INSTEAD.items():
        path = run_dir / name
        if not path.exists():
            continue
        try:
            content = load_checkpoint(path)
        except CorruptFileError as error:
            logger.info(f"{error}: set aside as {quarantine(path).name}; {instead}")
            continue
        if content["run_id"] != parts.about["run_id"]:
            raise UserError(f"{path} is of the run {content['run_id']}. Give another --run-dir")
        return content
    return None


def _ensure_best_checkpoint(run_dir: Path, parts: RunComponents, history: list[EpochMetrics]) -> bool:
    """Whether best.pt has the weights of the epoch that val chose, or will have; made anew if a checkpoint has them.

    It has those of a later epoch where a run goes on from the checkpoint before the last one: that epoch is going to
    be trained again.
    """
    if not history:
        return True
    path, best = run_dir / keys.BEST, best_row(history)
    if path.exists():
        try:
            kept = load_checkpoint(path)["history"]
            if kept[-1] == best or len(kept) > len(history):
                return True
        except CorruptFileError as error:
            logger.info(f"{error}: set aside as {quarantine(path).name}")
    for name in filter(lambda name: (run_dir / name).exists(), (keys.LAST, keys.PREVIOUS)):
        with contextlib.suppress(CorruptFileError):
            content = load_checkpoint(run_dir / name)
            if content["history"][-1:] == [best] and content.get("under_way") is None:
                parts.model.load_state_dict(content["model"])
                save_checkpoint(path, parts.model, None, content["history"], parts.about)
                logger.info(f"{keys.BEST} is written anew from {name}")
                return True
    return False


def _compare_history(run_dir: Path, history: list[EpochMetrics]) -> None:
    """Set the history file aside where it contradicts the checkpoint, which is what the run goes on from."""
    rows, torn = files.read_history(run_dir)
    common = min(len(rows), len(history))
    if torn > 1 or rows[:common] != history[:common]:
        aside = quarantine(run_dir / keys.HISTORY).name
        logger.info(f"{keys.HISTORY} is damaged: set aside as {aside}; written anew from the checkpoint")

"""Continues a run from its newest intact checkpoint. Quarantines damaged files, logs and rebuilds them."""

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
from finetune.training import state as training_state
from finetune.training.state import TrainState

logger = logging.getLogger(__name__)

Content = dict[str, Any]

_FALLBACKS = {keys.LAST: f"continues from {keys.PREVIOUS}", keys.PREVIOUS: "starts again"}


def check_directory(run_dir: Path, name: str) -> bool:
    """Raise UserError if the directory holds another run; return whether its config.yaml is damaged.

    If that file can't be read or names another run, an intact checkpoint decides which run this is.
    """
    if not files.is_run_dir(run_dir):
        return False
    try:
        named = files.read_config(run_dir).get("provenance", {}).get("run_id")
    except ValueError:
        named = None
    if named == name:
        return False
    by_checkpoint = _run_id_of_checkpoints(run_dir)
    if by_checkpoint == name:
        return True
    if named is None and by_checkpoint is None:
        if not (run_dir / keys.SUMMARY).exists():  # there are no results to lose
            return True
        raise UserError(
            f"{run_dir / keys.CONFIG} is damaged, and no checkpoint says which run this is. Give another --run-dir"
        )
    raise UserError(f"{run_dir} holds the run {by_checkpoint or named}, and this one is {name}. Give another --run-dir")


def _run_id_of_checkpoints(run_dir: Path) -> str | None:
    for name in (keys.LAST, keys.PREVIOUS, keys.BEST):
        with contextlib.suppress(UserError):
            return str(load_checkpoint(run_dir / name)["run_id"])
    return None


def resume(run_dir: Path, components: RunComponents) -> TrainState:
    """Load the newest intact checkpoint, if there is one, and return how far training has come.

    Raises:
        UserError: the checkpoint is of another run, or can't be read at the moment.
    """
    content = _load_newest(run_dir, components)
    best_epochs = 0
    if content is not None and content["history"]:
        best_epochs = _ensure_best_checkpoint(run_dir, components, content["history"])
        if not best_epochs:
            logger.info(f"no checkpoint has the weights of the best epoch for {keys.BEST}: starts again")
            for name in (keys.LAST, keys.PREVIOUS):
                delete(run_dir / name)
            content = None
    history = [] if content is None else list(content["history"])
    _check_history(run_dir, history)
    if content is None:
        return TrainState()
    state = _load_state(components, content, history)
    # A run that has to train its best epoch again (best.pt is newer than the checkpoint) does so before it stops.
    if history and not state.epoch.steps and best_epochs <= len(history):
        state.finished = state.finished or stop_request.is_requested(run_dir, len(history))
    return state


def _load_newest(run_dir: Path, components: RunComponents) -> Content | None:
    """Return the content of last.pt or, if that is damaged, of previous.pt; None without either."""
    for name, fallback in _FALLBACKS.items():
        path = run_dir / name
        if not path.exists():
            continue
        try:
            content = load_checkpoint(path)
        except CorruptFileError as error:
            logger.info(f"{error}: renamed to {quarantine(path).name}; {fallback}")
            continue
        if content["run_id"] != components.metadata["run_id"]:
            raise UserError(f"{path} is of the run {content['run_id']}. Give another --run-dir")
        return content
    return None


def _ensure_best_checkpoint(run_dir: Path, components: RunComponents, history: list[EpochMetrics]) -> int:
    """Return the number of epochs in best.pt, which holds the best epoch's weights, or 0 if no checkpoint has them.

    Rewrites it from last.pt or previous.pt if needed. It holds a later epoch than `history` if the run continues from
    previous.pt: that epoch will be trained again.
    """
    path, best = run_dir / keys.BEST, best_row(history)
    if path.exists():
        try:
            in_file = load_checkpoint(path)["history"]
            if in_file[-1] == best or len(in_file) > len(history):
                return len(in_file)
        except CorruptFileError as error:
            logger.info(f"{error}: renamed to {quarantine(path).name}")
    for name in (keys.LAST, keys.PREVIOUS):
        if not (run_dir / name).exists():
            continue
        with contextlib.suppress(CorruptFileError):
            content = load_checkpoint(run_dir / name)
            if content["history"][-1:] == [best] and content.get("under_way") is None:
                components.model.load_state_dict(content["model"])
                save_checkpoint(path, components.model, None, content["history"], components.metadata)
                logger.info(f"{keys.BEST} is rebuilt from {name}")
                return len(content["history"])
    return 0


def _check_history(run_dir: Path, history: list[EpochMetrics]) -> None:
    """Quarantine the history file if it contradicts the checkpoint, from which the run continues."""
    rows, torn = files.read_history(run_dir)
    common = min(len(rows), len(history))
    if torn > 1 or rows[:common] != history[:common]:
        quarantined = quarantine(run_dir / keys.HISTORY).name
        logger.info(f"{keys.HISTORY} is damaged: renamed to {quarantined}; rebuilt from the checkpoint")


def _load_state(components: RunComponents, content: Content, history: list[EpochMetrics]) -> TrainState:
    """Load a checkpoint's content into the model, the optimizer and the use counts."""
    components.model.load_state_dict(content["model"])
    finished = "optimizer" not in content  # a run drops it when training is over and only the test is missing
    if not finished:
        components.optimizer.load_state_dict(content["optimizer"])
    _restore_use_counts(components.uses, content)
    state = TrainState(history, micro_batch=content.get("micro_batch"), finished=finished)
    if content.get("under_way") is not None:
        state.epoch = training_state.from_checkpoint(content["under_way"], components.settings.device)
    return state


def _restore_use_counts(uses: Counter[ActivationKey], content: Content) -> None:
    """Restore the use counts of the checkpoint, although the run's peers may have finished.

    So a resumed run caches the same entries, which are rounded to float16.
    """
    for *key, count in content.get("uses", ()):
        if ActivationKey(*key) in uses:
            uses[ActivationKey(*key)] = count

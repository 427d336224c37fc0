"""Writes checkpoints and history of a run while it trains, and reports its progress."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.run.build import RunComponents
from finetune.run.checkpoint import save_checkpoint
from finetune.run.log_lines import epoch_line
from finetune.rundir import files, keys, retention, stop_request
from finetune.rundir.best_epoch import best_row
from finetune.rundir.claim import Claim
from finetune.training.state import TrainState, to_checkpoint

logger = logging.getLogger(__name__)

OnProgress = Callable[[dict[str, Any]], None]


class RunWriter:
    """Saves a run's state to its directory and reports its progress.

    Args:
        state: of the training, which keeps it up to date.
        on_progress: see `run.run`.
    """

    def __init__(
        self, run_dir: Path, components: RunComponents, state: TrainState, claim: Claim, on_progress: OnProgress
    ) -> None:
        self._run_dir, self._components, self._state = run_dir, components, state
        self._claim, self._on_progress = claim, on_progress
        self._val_accuracy = state.history[-1]["val/accuracy"] if state.history else None

    def report(self, phase: str, epoch: float, **details: Any) -> None:
        """Report the phase and the epochs finished, such as 2.35."""
        progress = {"phase": phase, "epoch": epoch, "epochs": self._components.config.epochs}
        self._on_progress({**progress, "val_accuracy": self._val_accuracy, **details})

    def report_fill(self, share: float | None) -> None:
        """Report the share of a cache that is filled; None while another process fills it."""
        self.report("cache", len(self._state.history), share=share)

    def save_last(self) -> None:
        """Write last.pt, and keep the one before it as previous.pt."""
        self._claim.beat()
        state, components = self._state, self._components
        epoch = to_checkpoint(state.epoch, components.settings.device) if state.epoch.steps else None
        uses = [[*key, count] for key, count in components.uses.items()]
        fields = {**components.metadata, "micro_batch": state.micro_batch, "under_way": epoch, "uses": uses}
        # The optimizer is twice the size of the network, and of no use once training is over.
        optimizer = None if state.finished else components.optimizer
        last, previous = self._run_dir / keys.LAST, self._run_dir / keys.PREVIOUS
        save_checkpoint(last, components.model, optimizer, state.history, fields, previous)

    def save_epoch(self) -> bool:
        """Save after an epoch, and return whether the run has been asked to stop there."""
        history = self._state.history
        if self._components.config.keep == "every":
            self._save_weights(retention.epoch_file(self._run_dir, len(history)))
        self.save_last()
        if best_row(history) is history[-1]:  # after last.pt, from which it can be rebuilt if the run is killed here
            self._save_weights(self._run_dir / keys.BEST)
        files.append_history(self._run_dir, history[-1])
        self._val_accuracy = history[-1]["val/accuracy"]
        logger.info(epoch_line(history[-1], self._components.config.epochs))
        return stop_request.ends_run(self._run_dir, len(history))

    def _save_weights(self, path: Path) -> None:
        save_checkpoint(path, self._components.model, None, self._state.history, self._components.metadata)

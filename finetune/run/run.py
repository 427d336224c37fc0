"""One run, from a config to a finished run directory: the table of contents of this package."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.cache.store import FillCallbacks
from finetune.config import Config
from finetune.errors import RunInterrupted
from finetune.resolve import resolve, run_id
from finetune.run.build import RunComponents, build_batch_source, build_components
from finetune.run.finish import finish
from finetune.run.log_lines import resume_line, start_lines
from finetune.run.memory_check import check_largest_stage_fits
from finetune.run.preflight import InputFingerprints, fingerprint_inputs
from finetune.run.provenance import provenance
from finetune.run.resume import check_directory, resume
from finetune.run.run_writer import OnProgress, RunWriter
from finetune.rundir import files, keys, retention
from finetune.rundir.claim import Claim, RunTakenError, hold_claim
from finetune.rundir.failures import cause_of
from finetune.rundir.integrity import damaged_files, quarantine_damaged
from finetune.system import signals
from finetune.system.checksums import quarantine
from finetune.system.tables import write_table
from finetune.training.loop import TrainCallbacks, Trainer
from finetune.training.metering import EnergyMeter, energy_meter, keep_freed_memory

logger = logging.getLogger(__name__)


class RunCallbacks(NamedTuple):
    """Callbacks of a run; see `run`."""

    on_progress: OnProgress
    interrupted: Callable[[], bool]


class _RunSpec(NamedTuple):
    """A resolved config, the run's directory and id, and other arguments of `run`."""

    config: Config
    run_dir: Path
    name: str
    inputs: InputFingerprints
    peers: Sequence[Config] | None


def run(
    config: Config,
    run_dir: Path,
    *,
    on_progress: OnProgress = lambda progress: None,  # noqa: ARG005
    interrupted: Callable[[], bool] = lambda: False,
    peers: Sequence[Config] | None = (),
    inputs: InputFingerprints | None = None,
) -> bool:
    """Run `config` in `run_dir`, from its last checkpoint if there is one.

    Quarantines and rebuilds damaged files in there (see resume.py and rundir/integrity.py).

    Args:
        on_progress: called often with phase (cache, train, val, test), epoch (epochs finished, such as 2.35), epochs,
            val_accuracy, and in phase cache the share that is filled (None while another run fills it).
        interrupted: called after each step; if it returns true, the run saves its state, to continue from that step
            later, and raises RunInterrupted. Meanwhile a first signal is only recorded (see system/signals.py).
        peers: the configs of the pending runs that may share its caches, such as those of its sweep; None if they are
            not all known. They decide which activations `cache: auto` keeps, and their inputs have been checked.
        inputs: the result of `fingerprint_inputs`, None to call it.

    Returns:
        Whether there was anything to do: False for a run that is finished and intact.

    Raises:
        UserError: data, weights or directory do not fit; nothing was written.
        RunTakenError: another process runs this run.
        TrainingError: diverged, or out of memory.
        WriteError: a file can't be written; what was written before is intact.
        RunInterrupted: `interrupted` returned true; everything computed is saved.
    """
    config = resolve(config)
    inputs = inputs or fingerprint_inputs(config, skip_checks=config in (peers or ()))
    name = run_id(config, *inputs)
    config_damaged = check_directory(run_dir, name)
    if not config_damaged and (run_dir / keys.SUMMARY).is_file() and not damaged_files(run_dir):
        return False
    spec = _RunSpec(config, run_dir, name, inputs, peers)
    with hold_claim(run_dir) as claim:
        if config_damaged:
            _quarantine_config(run_dir)
        if quarantine_damaged(run_dir):  # another process has finished it meanwhile
            return False
        with _recording_outcome(run_dir):
            _execute(spec, claim, RunCallbacks(on_progress, interrupted))
    return True


def _quarantine_config(run_dir: Path) -> None:
    if (run_dir / keys.SUMMARY).exists():  # with it, the run would count as finished and write no config
        quarantine(run_dir / keys.SUMMARY)
    logger.info(f"{keys.CONFIG} is damaged: renamed to {quarantine(run_dir / keys.CONFIG).name}; written again")


@contextlib.contextmanager
def _recording_outcome(run_dir: Path) -> Iterator[None]:
    """Write to state.json that the run is running, and how it ends."""
    try:
        files.write_state(run_dir, "running")
        yield
        _record(run_dir, "finished", "")
    except RunTakenError:
        raise  # the file is the new owner's
    except RunInterrupted as error:
        _record(run_dir, "killed", f"{error}; the same command continues from there")
        raise
    except (KeyboardInterrupt, SystemExit):
        _record(run_dir, "killed", "stopped by a signal; the same command continues from the last checkpoint")
        raise
    except Exception as error:
        _record(run_dir, "failed", f"{type(error).__name__}: {error}", cause_of(error))
        raise


def _record(run_dir: Path, state: str, reason: str, cause: str = "") -> None:
    with contextlib.suppress(OSError):  # a full disk, say; the error that ended the run is raised anyway
        files.write_state(run_dir, state, reason, cause)


def _execute(spec: _RunSpec, claim: Claim, callbacks: RunCallbacks) -> None:
    """Build, resume, train and test the run."""
    started = time.monotonic()
    keep_freed_memory()
    components = build_components(spec.config, spec.name, spec.peers)
    meter = _record_start(spec, components, claim.attempt)
    state = resume(spec.run_dir, components)
    seconds_before = state.seconds()
    if state.history or state.epoch.steps:
        logger.info(resume_line(state))
    files.write_history(spec.run_dir, state.history)
    state.memory_limit = check_largest_stage_fits(components, len(state.history))

    writer = RunWriter(spec.run_dir, components, state, claim, callbacks.on_progress)
    is_last_run = spec.peers is not None and len(spec.peers) < 2
    fill_callbacks = FillCallbacks(writer.report_fill, callbacks.interrupted)
    source = build_batch_source(components, spec.inputs.data, is_last_run, fill_callbacks)
    train_callbacks = TrainCallbacks(writer.save_epoch, writer.report, callbacks.interrupted, meter.poll)
    trainer = Trainer(
        components.settings, components.model, components.prefix, components.optimizer, source, state, train_callbacks
    )
    with signals.polling_signals():
        _train(trainer, writer)
        writer.report("test", len(state.history))
        wall_seconds = lambda: seconds_before + time.monotonic() - started  # noqa: E731
        finish(spec.run_dir, components, source, state, callbacks.interrupted, wall_seconds)
        retention.delete_unretained_checkpoints(spec.run_dir, spec.config.keep)


def _record_start(spec: _RunSpec, components: RunComponents, attempt: int) -> EnergyMeter:
    """Write config.yaml and splits.csv, log the run's description, and return its energy meter."""
    meter, energy = energy_meter(components.settings.device)
    origin = {"run_id": spec.name, "sweep": spec.run_dir.resolve().parent.name}
    full_provenance = {**origin, **provenance(components, spec.inputs), "energy": energy}
    files.write_config(spec.run_dir, components.metadata["config"], full_provenance)
    write_table(spec.run_dir / keys.SPLITS, *components.splits.table())
    for line in start_lines(components, spec.name, attempt):
        logger.info(line)
    return meter


def _train(trainer: Trainer, writer: RunWriter) -> None:
    """Train to the end, and save; when interrupted, save too."""
    try:
        trainer.fit()
    except RunInterrupted:
        writer.save_last()
        raise
    trainer.state.finished = True
    writer.save_last()

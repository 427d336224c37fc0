"""Checks of a sweep's folder before its runs start: temporary files, damaged runs, runs on other inputs."""

from pathlib import Path

from finetune.errors import UserError
from finetune.rundir import claim, files, integrity, keys
from finetune.sweep.plan import SweepPlan
from finetune.sweep.trials import TRIALS
from finetune.system import atomic


def clean_folder(plan: SweepPlan) -> None:
    """Delete temporary files of killed processes, where no live run would do it."""
    for folder in (plan.sweep.folder, plan.sweep.folder / TRIALS, *(run.directory for run in plan.runs)):
        atomic.delete_stale_temporaries(folder)


def quarantine_damaged_runs(plan: SweepPlan) -> None:
    """Rename damaged files of finished runs and log each, so that these runs count as unfinished.

    Such a run tests its checkpoint again and rewrites the files; without an intact checkpoint it trains again.
    """
    for run in plan.runs:
        if (run.directory / keys.SUMMARY).is_file() and not claim.is_alive(run.directory):
            integrity.quarantine_damaged(run.directory, checkpoints=False)


def require_same_inputs(plan: SweepPlan) -> None:
    """Check that the runs in the folder can be compared with those of the plan.

    Raises:
        UserError: some are on other data, or from a weights file that has changed or been damaged since. With other
            weights all planned runs would be new ones, and the finished ones would no longer count.
    """
    folder = plan.sweep.folder
    inputs = [(config.weights, *plan.fingerprint_inputs(config)) for config in plan.inputs]
    fingerprints = {fingerprint for _, fingerprint, _ in inputs}
    hashes = {weights: weights_hash for weights, _, weights_hash in inputs if Path(weights).is_absolute()}
    for run_dir in files.find_runs(folder) if folder.is_dir() else []:
        try:
            config = files.read_config(run_dir)
        except ValueError:  # damaged: the agent that runs it will find out which run it is
            continue
        provenance = config.get("provenance", {})
        fingerprint = provenance.get("data_fingerprint")
        if not isinstance(fingerprint, str) or fingerprint not in fingerprints:
            raise UserError(
                f"{folder} holds runs on other images, such as {run_dir.name} on {config.get('data')}; "
                f"--name other keeps them apart"
            )
        weights, weights_hash = config.get("weights"), provenance.get("weights_hash")
        if weights_hash is not None and hashes.get(str(weights), weights_hash) != weights_hash:
            raise UserError(
                f"{weights} has changed, or been damaged, since {run_dir.name} was trained from it. Restore the file; "
                "or --name other keeps runs from this one apart"
            )

"""Checks of a sweep's folder before its runs start: temporary files, damaged runs, runs on other inputs."""

from pathlib import Path

from finetune.config import to_dict
from finetune.errors import UserError
from finetune.resolve import FIELDS_WITHOUT_EFFECT
from finetune.rundir import claim, files, integrity, keys
from finetune.sweep.plan import SweepPlan
from finetune.sweep.trials import TRIALS
from finetune.system import atomic, documents


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


def require_same_sweep(plan: SweepPlan) -> None:
    """Raise UserError if the folder holds the runs of another sweep file of the same name, and none of this one's."""
    stored = documents.read_json_or_empty(plan.sweep.folder / keys.PLAN)
    source, own = stored.get("source"), plan.sweep.source.resolve()
    if not isinstance(source, str) or source == str(own) or own.parent == plan.sweep.folder.resolve():
        return
    planned = {run.id for run in plan.runs}
    if planned and stored.get("runs") and not planned & set(stored["runs"]):
        raise UserError(
            f"{plan.sweep.folder} holds the runs of {source}, another sweep file of this name, and none of {own}'s: "
            "--name other keeps them apart"
        )


def describe_unused_runs(plan: SweepPlan) -> str:
    """Return which finished runs of the folder are none of the plan's, why, and how to start from them; "" if none."""
    folder = plan.sweep.folder
    planned = {run.id for run in plan.runs}
    unused = [run for run in (files.find_runs(folder) if folder.is_dir() else []) if run.name not in planned]
    unused = [run for run in unused if files.status(run)[0] == "finished"]
    if not unused or not plan.runs:
        return ""
    example = unused[0]
    try:
        config = files.read_config(example)
    except ValueError:
        return ""
    differing = [
        [name for name, value in to_dict(run.config).items() if name in config and config[name] != value]
        for run in plan.runs
    ]
    fields = [name for name in min(differing, key=len) if name not in FIELDS_WITHOUT_EFFECT]
    was = ", ".join(f"{name} {config[name]}" for name in fields) or "other versions of data or weights"
    count = "1 finished run" if len(unused) == 1 else f"{len(unused)} finished runs"
    best = example / keys.BEST
    start = f"; to start from it instead: --set weights={best}" if best.is_file() else ""
    return (
        f"{count} in {folder} can't be used for this sweep, such as {example.name} with {was}: another recipe is "
        f"trained from its beginning{start}"
    )


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

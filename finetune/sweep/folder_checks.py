"""What earlier agents have left in a sweep's folder: files half-written, damaged runs, runs that are no part of it."""

from pathlib import Path

from finetune.errors import UserError
from finetune.rundir import claim, files, integrity, keys
from finetune.sweep.plan import TRIALS, SweepPlan
from finetune.system import atomic


def clean_folder(plan: SweepPlan) -> None:
    """Delete what killed processes have left of files in the making, where no live run would do it."""
    for folder in (plan.sweep.folder, plan.sweep.folder / TRIALS, *(run.directory for run in plan.runs)):
        atomic.delete_stale_temporaries(folder)


def quarantine_damaged_runs(plan: SweepPlan) -> None:
    """Have finished runs whose files are damaged count as unfinished, and log each such file.

    They test their checkpoint again and write the files anew; one without a whole checkpoint trains again.
    """
    for run in plan.runs:
        if (run.directory / keys.SUMMARY).is_file() and not claim.is_alive(run.directory):
            integrity.quarantine_damaged(run.directory, checkpoints=False)


def require_same_inputs(plan: SweepPlan) -> None:
    """Raise UserError if the folder holds runs that must not be compared with these.

    They are on other data; or from a file of weights that is another one now, changed or damaged: all runs would be new
    ones, and those that are there count no more.
    """
    folder = plan.sweep.folder
    ours = [(config.weights, *plan.identify(config)) for config in plan.to_prepare]
    pictures = {fingerprint for _, fingerprint, _ in ours}
    of_files = {weights: content for weights, _, content in ours if Path(weights).is_absolute()}
    for run_dir in files.find_runs(folder) if folder.is_dir() else []:
        try:
            config = files.read_config(run_dir)
        except ValueError:  # damaged; whoever runs it finds out which run it is
            continue
        provenance = config.get("provenance", {})
        theirs = provenance.get("data_fingerprint")
        if not isinstance(theirs, str) or theirs not in pictures:
            raise UserError(
                f"{folder} holds runs on other pictures, such as {run_dir.name} on {config.get('data')}; "
                f"--name other keeps them apart"
            )
        weights, content = config.get("weights"), provenance.get("weights_hash")
        if isinstance(weights, str) and isinstance(content, str) and of_files.get(weights, content) != content:
            raise UserError(
                f"{weights} is not what it was when {run_dir.name} was trained from it: changed, or damaged. Bring it "
                "back as it was; or --name other keeps runs from this one apart"
            )

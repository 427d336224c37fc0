"""What a run leaves behind: the run directory, its files, their keys, and how they are written and read.

A run directory is the only channel between a run and everything that looks at it: agents, `analysis`, `predict`, a
person with `cat`. This file imports neither torch nor anything else of the package that does.

All of it may come from elsewhere: reading is bounded, runs nothing, and raises few kinds of errors.

    config.yaml      every resolved field, and `provenance`: commit, versions, data fingerprint, weights hash, classes
    history.jsonl    one line an epoch, HISTORY_KEYS
    summary.json     written once, at the end, SUMMARY_KEYS; its presence means that the run is finished
    predictions.csv  one row a test picture: path (inside the data folder), label, prediction, probability/<class>
    thumbnails.zip   small pictures of the test set, the ones that the prediction grid shows (see showcase.py)
    attention.zip    the same pictures with what the network looked at, if asked for (see attention.py)
    splits.csv       path, label, split of every picture
    best.pt last.pt  the checkpoint that val chose; the last one, with all that a resume needs (see keeping.py)
    epoch-0001.pt    with `keep: every`, the checkpoint of each epoch
    previous.pt      the one before last.pt, gone on from should that be damaged; deleted once the run is finished
    SHA256SUMS       written before the summary: checksums of the files that results rest on (see sums.py)
    NAME.damaged-N   a file that was found damaged, set aside; it can be deleted
    log.txt          what the run printed
    state.json       the state the run last reported, and why
    wandb-ID.json    what the W&B run of this id has been sent (see mirror.py); wandb.json beside the run directories
                     names the W&B sweep they belong to
    claim-N.json     who runs it (see claim.py); the newest one's modification time is the heartbeat
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from finetune import plain_yaml
from finetune.atomic import check_guard, write_atomic
from finetune.errors import DamagedError
from finetune.secrets import redact, redact_values
from finetune.writing import explained

CONFIG, HISTORY, SUMMARY, PREDICTIONS = "config.yaml", "history.jsonl", "summary.json", "predictions.csv"
SPLITS, BEST, LAST, LOG, STATE = "splits.csv", "best.pt", "last.pt", "log.txt", "state.json"
THUMBNAILS, ATTENTION = "thumbnails.zip", "attention.zip"
PREVIOUS, SUMS = "previous.pt", "SHA256SUMS"
SWEEP = "sweep.yaml"  # beside the run directories: the sweep file as it was run
PLAN = "plan.json"  # beside the run directories: the runs that the sweep asks for, and whether they race
REMOTE = "wandb.json"  # beside the run directories: entity, project and sweep (the id) on the W&B server
STOP = "stop"  # a file of this name in a run directory asks the run to end after its epoch, and test
PROBABILITY = "probability/"  # prefix of the probability columns of PREDICTIONS

# What is read of one file, far more than any run writes.
MOST_JSON, MOST_HISTORY = 64 * 2**20, 64 * 2**20  # bytes
MOST_LINE = 2**20  # of a history

# Accuracies and shares are fractions in [0, 1]; `epoch` counts finished epochs, so the first row has epoch 1.
HISTORY_KEYS = {
    "epoch": "epochs finished",
    "train/loss": "mean training loss of the epoch, label smoothing and, with balance weights, class weights included",
    "train/accuracy": "share of training pictures named rightly, as augmented, while training; with balance sampler, "
    "as they were drawn, so that every class counts the same; with mixup or cutmix, by the label that counts most",
    "val/loss": "mean cross-entropy on val",
    "val/accuracy": "share of val pictures named rightly",
    "val/macro_f1": "mean over classes of F1 on val: each class counts the same, however rare it is",
    "val/min_recall": "the lowest share of a class's val pictures that were named rightly",
    "lr/head": "the head's rate at the end of the epoch",
    "lr/backbone": "the highest rate of a backbone block that trains at the end of the epoch, 0 when all are frozen",
    "trainable_share": "share of the backbone's blocks that train in this epoch",
    "cached_share": "share of the backbone's blocks whose output came from a cache and was not computed in this epoch",
    "energy_joules": "used by GPU and CPU packages in this epoch, other processes included; null: not measured",
    "epoch_seconds": "wall time of the epoch; what it went into adds up to it:",
    "seconds/cache": "filling caches that later epochs and other runs use",
    "seconds/loader": "waiting for batches, and bringing them to the device",
    "seconds/prefix": "forward passes of the frozen part, where no cache holds them",
    "seconds/suffix": "forward and backward passes of what trains, and the optimiser",
    "seconds/val": "val",
    "seconds/save": "checkpoints and records of the epoch before",
    "seconds/other": "the rest",
}
SUMMARY_KEYS = {
    "state": "finished",
    "best/epoch": "epochs finished when val was best; this checkpoint is tested",
    "best/val_accuracy": "val accuracy at that epoch",
    "best/val_loss": "val loss at that epoch",
    "best/val_macro_f1": "macro-F1 on val at that epoch",
    "test/accuracy": "share of test pictures named rightly, read once, at the best epoch",
    "test/macro_f1": "mean over classes of F1 on test",
    "test/balanced_accuracy": "mean over classes of recall on test",
    "test/min_recall": "the lowest of these",
    "test/recall": "class -> share of its test pictures that were named rightly; classes without any are left out",
    "test/loss": "mean cross-entropy on test",
    "temperature": "what logits are to be divided by for confidences that can be believed; fitted on val at that epoch",
    "test/ece": "expected calibration error on test: how far confidence and accuracy lie apart, in 15 bins",
    "test/ece_scaled": "the same at that temperature",
    "epochs": "epochs trained (fewer than asked after early stopping)",
    "epochs_to_80": "epochs until val accuracy first reached 0.8; null when it never did",
    "wall_seconds": "from the start of the run to its end, building, caches, val and test included; of earlier "
    "attempts, their epochs",
    "train_seconds": "sum of epoch_seconds over all attempts",
    "cache_seconds": "of these, for filling caches that other runs of the sweep use too",
    "images_per_second": "training pictures a second of loading and computing; val and filling caches left out",
    "peak_memory_mb": "most memory of the run's process in MB, or of its GPU",
    "energy_joules": "sum of the epochs' energy_joules; null: not measured",
    "micro_batch": "pictures in one pass of the network; less than batch_size once memory ran out",
    "trainable_parameters": "parameters that train in the last epoch, head included",
    "total_parameters": "all parameters, head included",
    "forward_gflops": "the forward pass of one picture through all blocks, from a counter",
    "backward_gflops": "the backward pass of one picture through what trains, from a counter, mean over epochs",
    "train_gflops": "training cost by that counter: forward pass of all blocks, backward pass of what trains",
    "computed_gflops": "of these, without the frozen blocks where a cache held what they make (filling not counted)",
    "full_gflops": "the same when every block trains from the first epoch on: what freezing is compared with",
    "frozen/block_share": "share of blocks frozen, mean over epochs",
    "frozen/parameter_share": "share of the backbone's parameters frozen, mean over epochs",
    "frozen/flop_share": "share of the backbone's forward FLOPs in frozen blocks, mean over epochs",
}


def json_text(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON. NaN and infinity are refused with ValueError: they are not JSON."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON (see `json_text`), atomically."""
    write_atomic(path, json_text(value))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`, or None where there is no such file.

    Raises:
        DamagedError: it holds something else, or is too large or too deep to be one of these.
    """
    try:
        return _object(_text(path, MOST_JSON))
    except FileNotFoundError:
        return None
    except DamagedError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: it holds no JSON object ({error}). Take it out of the way") from error


def read_if_whole(path: Path) -> dict[str, Any]:
    """Return the object in `path`; an empty one where there is no such file, or a damaged one."""
    try:
        return read_json(path) or {}
    except ValueError:
        return {}


def _object(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`; ValueError, TypeError or RecursionError where it is none."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__}")
    return content


def _text(path: Path, most: int) -> str:
    """Return a file's text; DamagedError where it is larger than `most` bytes."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DamagedError(f"{path} is larger than the {most / 2**20:,.0f} MB that are read of it")
    return content.decode("utf-8")


def write_config(run_dir: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Write the resolved fields and, under `provenance`, where they were run, on what, with which versions."""
    made = redact_values({**config, "provenance": dict(provenance)})
    content = yaml.safe_dump(made, sort_keys=False, allow_unicode=True)
    write_atomic(run_dir / CONFIG, content)


def read_config(run_dir: Path) -> dict[str, Any]:
    """Return the fields of `config.yaml`, `provenance` among them.

    Raises:
        FileNotFoundError: the run has not started yet.
        DamagedError: it holds something else.
    """
    path = run_dir / CONFIG
    try:
        content = plain_yaml.load(_text(path, MOST_JSON))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is damaged: it is no YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("provenance", {}), dict):
        raise DamagedError(f"{path} is damaged: it holds no fields")
    return {str(name): value for name, value in content.items()}


def write_history(run_dir: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the history by `rows`, atomically (a resumed run goes back to its checkpoint's)."""
    write_atomic(run_dir / HISTORY, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def append_history(run_dir: Path, row: Mapping[str, Any]) -> None:
    """Append one epoch's row. A crash can tear this line, which `read_history` drops."""
    check_guard(run_dir / HISTORY)
    with explained(run_dir / HISTORY), (run_dir / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def read_history(run_dir: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the history, and how many torn lines were dropped (more than 1 means a damaged file).

    A row has a number as its epoch; whatever else it should have is not looked at. What lies beyond MOST_HISTORY is not
    read, and counts as one such line.
    """
    path = run_dir / HISTORY
    rows: list[dict[str, Any]] = []
    torn = size = 0
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        while line := file.readline(MOST_LINE):
            size += len(line)
            if size > MOST_HISTORY:
                return rows, torn + 1
            if not line.endswith(b"\n") and len(line) == MOST_LINE:
                line = _rest_of_line(file)
            try:
                row = _object(line.decode("utf-8", errors="replace"))
            except (ValueError, TypeError, RecursionError):
                row = {}
            if isinstance(row.get("epoch"), int | float):
                rows.append(row)
            else:
                torn += 1
    return rows, torn


def _rest_of_line(file: IO[bytes]) -> bytes:
    """Pass over the rest of a line that is too long to be one; what stands for it is no JSON."""
    while (part := file.readline(MOST_LINE)) and not part.endswith(b"\n"):
        if file.tell() > MOST_HISTORY:
            break
    return b"too long"


def write_state(run_dir: Path, state: str, reason: str = "", cause: str = "") -> None:
    """Note the state the run is in: running, finished, failed (an error in the run) or killed (by a signal).

    Args:
        reason: secrets are taken out of it.
        cause: of a failure, one of `causes.CAUSES`.
    """
    write_json(run_dir / STATE, {"state": state, "reason": redact(reason), "cause": cause})


def is_run_dir(path: Path) -> bool:
    """Whether `path` holds a run that has at least started."""
    return (path / CONFIG).is_file()


def find_runs(folder: Path) -> list[Path]:
    """Return the run directories directly inside `folder`, or `folder` itself if it is one, sorted by name."""
    if is_run_dir(folder):
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_run_dir(path))


def status(run_dir: Path) -> tuple[str, str]:
    """Return the run's state and reason: finished, failed, killed, or unfinished (running, or ended without a word).

    Whether an unfinished run is alive is for `claim.is_alive` to say.
    """
    if (run_dir / SUMMARY).is_file():
        whole = bool(read_if_whole(run_dir / SUMMARY))
        return ("finished", "") if whole else ("unfinished", f"{SUMMARY} is damaged")
    told = read_if_whole(run_dir / STATE)
    if told.get("state") in ("failed", "killed"):
        return str(told["state"]), str(told.get("reason", ""))
    return "unfinished", ""

"""Starting W&B's agents, or a run as they would, as processes: their GPU, share of the cores, environment and log."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import yaml

from finetune.errors import UserError
from finetune.sweep import devices
from finetune.system.atomic import raising_write_error, write_atomic
from finetune.system.environment import python_path
from finetune.tracking.sweep_server import FailedWandbRun, WandbSweep


def _environment(slot: int, slots: int, folder: Path) -> dict[str, str]:
    """Return the environment of an agent, or of what it would start: its GPU, its share of the cores."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = python_path()
    # W&B's agent runs `/usr/bin/env python`: that must be this Python.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.setdefault("OMP_NUM_THREADS", str(devices.threads(slots)))
    environment.setdefault("WANDB_DIR", str(folder.resolve()))
    environment.setdefault("WANDB_AGENT_DISABLE_FLAPPING", "true")  # --max-failures decides when to give up
    environment.setdefault("WANDB_AGENT_MAX_INITIAL_FAILURES", str(10**6))
    environment.setdefault("WANDB_AGENT_KILL_DELAY", str(6 * 3600))  # a run stopped early ends its epoch and is tested
    gpu = devices.gpu_of(slot)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


def start(command: list[str], slot: int, slots: int, folder: Path, **more: str) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C on the terminal reaches this process alone.

    Args:
        slot, slots: which of how many go side by side, for its GPU and its share of the cores.
        folder: of the sweep's run directories, where its output goes.
        more: variables of its environment.
    """
    with _opened(folder / f"agent-{slot + 1}.txt") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**_environment(slot, slots, folder), **more},
            start_new_session=True,
        )


def _opened(log: Path) -> IO[bytes]:
    """Open a log to be added to, or nowhere if that can't be written, on a full disk, say: runs do not rest on it."""
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def start_again(
    remote: WandbSweep, run: FailedWandbRun, slot: int, slots: int, folder: Path
) -> subprocess.Popen[bytes]:
    """Start a failed run as W&B's agent would; see `start`.

    Raises:
        UserError: the run's id can't be the name of a file.
        WriteError: there is no room for its parameters.
    """
    if not re.fullmatch(r"[\w-]{1,128}", run.id):
        raise UserError(f"{remote.path}: a run is called {run.id!r}, which can't be the name of a file")
    parameters = folder / "wandb" / f"retry-{run.id}.yaml"
    with raising_write_error(parameters):
        parameters.parent.mkdir(exist_ok=True)
    content = {"wandb_version": 1, **{name: {"value": value} for name, value in run.values.items()}}
    write_atomic(parameters, yaml.safe_dump(content))
    return start(
        _command(remote.spec),
        slot,
        slots,
        folder,
        WANDB_ENTITY=remote.entity,
        WANDB_PROJECT=remote.project,
        WANDB_SWEEP_ID=remote.id,
        WANDB_RUN_ID=run.id,
        WANDB_SWEEP_PARAM_PATH=str(parameters.resolve()),
    )


def _command(spec: dict[str, Any]) -> list[str]:
    """Return the sweep's command with this Python; the values themselves come from a file (see wandb_trial.py)."""
    macros = {"${interpreter}": sys.executable, "${program}": str(spec.get("program", "agent.py"))}
    words = []
    for word in map(str, spec.get("command") or macros):
        variable = re.fullmatch(r"\$\{envvar:(\w+)\}", word)
        if variable:
            words.append(os.environ.get(variable[1], ""))
        elif word in macros or not word.startswith("${"):
            words.append(macros.get(word, word))
    return words

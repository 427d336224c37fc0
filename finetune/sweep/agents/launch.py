"""Starts W&B's agents, or one run as such an agent would, as processes with a GPU, a share of the cores, and a log.

W&B never hands out a failed run again, and its agent can't be asked for a certain run. So `restart_run` does for a
failed run the same as W&B's agent for a new one: the sweep's command, a parameter file, and the run's id in the
environment.
"""

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
from finetune.system.environment import child_environment
from finetune.tracking.sweep_server import FailedWandbRun, WandbSweep


def start_process(command: list[str], slot: int, slots: int, folder: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C on the terminal reaches this process alone.

    Args:
        slot: which of `slots` processes side by side it is; decides its GPU and its share of the cores.
        folder: of the sweep's run directories; the output goes to agent-N.txt in it.
        variables: added to its environment.
    """
    with _open_log(folder / f"agent-{slot + 1}.txt") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**_environment(slot, slots, folder), **variables},
            start_new_session=True,
        )


def _open_log(log: Path) -> IO[bytes]:
    """Open a log for appending, or the null device if the log can't be written: runs do not depend on it."""
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")


def _environment(slot: int, slots: int, folder: Path) -> dict[str, str]:
    environment = child_environment()
    # W&B's agent runs `/usr/bin/env python`: that must be this Python.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.setdefault("OMP_NUM_THREADS", str(devices.threads_per_run(slots)))
    environment.setdefault("WANDB_DIR", str(folder.resolve()))
    environment.setdefault("WANDB_AGENT_DISABLE_FLAPPING", "true")  # --max-failures decides when to give up
    environment.setdefault("WANDB_AGENT_MAX_INITIAL_FAILURES", str(10**6))
    environment.setdefault("WANDB_AGENT_KILL_DELAY", str(6 * 3600))  # a run stopped early ends its epoch and is tested
    gpu = devices.gpu_of(slot)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


def restart_run(sweep: WandbSweep, run: FailedWandbRun, slot: int, slots: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a failed run as W&B's agent would; see `start_process`.

    Raises:
        UserError: the run's id can't be the name of a file.
        WriteError: there is no room for its parameters.
    """
    if not re.fullmatch(r"[\w-]{1,128}", run.id):
        raise UserError(f"{sweep.path}: a run is called {run.id!r}, which can't be the name of a file")
    parameters = folder / "wandb" / f"retry-{run.id}.yaml"
    with raising_write_error(parameters):
        parameters.parent.mkdir(exist_ok=True)
    content = {"wandb_version": 1, **{name: {"value": value} for name, value in run.values.items()}}
    write_atomic(parameters, yaml.safe_dump(content))
    return start_process(
        _command(sweep.spec),
        slot,
        slots,
        folder,
        WANDB_ENTITY=sweep.entity,
        WANDB_PROJECT=sweep.project,
        WANDB_SWEEP_ID=sweep.id,
        WANDB_RUN_ID=run.id,
        WANDB_SWEEP_PARAM_PATH=str(parameters.resolve()),
    )


def _command(spec: dict[str, Any]) -> list[str]:
    """Return the sweep's command with this Python; parameters are passed in a file (see wandb_trial.py)."""
    macros = {"${interpreter}": sys.executable, "${program}": str(spec.get("program", "agent.py"))}
    words = []
    for word in map(str, spec.get("command") or macros):
        variable = re.fullmatch(r"\$\{envvar:(\w+)\}", word)
        if variable:
            words.append(os.environ.get(variable[1], ""))
        elif word in macros or not word.startswith("${"):
            words.append(macros.get(word, word))
    return words

"""One run that W&B's agent has handed to this process: `python agent.py --lr=0.001 ...` with WANDB_RUN_ID set.

The config passes the same check as any other. The run goes to runs/<sweep id>/<strategy>-<hash>/ and is mirrored to
W&B by a process of its own; whatever becomes of that, the run goes on. A run that this machine has done already, under
another W&B id, is not done again: its results are sent.
"""

import contextlib
import importlib
import itertools
import logging
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import yaml

from finetune.config import Config, parse_config
from finetune.errors import EXIT_FAILED, ConfigError, RunInterrupted, UserError, nearest
from finetune.resolve import resolve, run_id, with_absolute_paths
from finetune.rundir import claim, files, keys
from finetune.rundir.claim import RunTakenError
from finetune.rundir.failures import cause_of
from finetune.sweep import devices
from finetune.sweep.agents.training_api import TrainingApi
from finetune.sweep.sweep_file import RUNS
from finetune.system import documents
from finetune.system.atomic import WriteError, raising_write_error, write_atomic
from finetune.system.output import logging_to
from finetune.system.signals import ReceivedSignals, handle_signals, polling_signals
from finetune.tracking import mirror_client
from finetune.tracking.mirror_client import MirrorClient

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# A batch system's signal reaches a run several times: itself, passed on by W&B's agent, and by what started that.
SAME_REQUEST_SECONDS = 5.0
MAX_PEERS = 1000  # a run that has so many need not know each


def is_trial() -> bool:
    """Whether this process was started by an agent of W&B's."""
    return "WANDB_SWEEP_PARAM_PATH" in os.environ and "WANDB_RUN_ID" in os.environ


def run_trial(arguments: list[str], training: TrainingApi) -> int:
    """Run what W&B's agent asks for and return the exit code (see errors.py; 130 and 143 after a signal).

    Args:
        arguments: the command line, `--key=value`.
    """
    agent = os.getppid()
    devices.prefer_as_oom_victim()
    mirror = MirrorClient(mirror_client.run_ref_from_environment())
    with handle_signals(same_request_seconds=SAME_REQUEST_SECONDS) as signals:
        threading.Thread(target=_end_with_agent, args=(agent, signals), name="agent watch", daemon=True).start()
        ending = _run_to_outcome(arguments, training, mirror, signals)
        if ending[2]:
            print(ending[2], file=sys.stderr)
        with polling_signals():  # a first signal changes nothing any more: the wait for W&B has an end
            if not mirror.end(*ending):
                _say_missed(mirror, ending[1])
    return ending[0]


def _run_to_outcome(
    arguments: list[str], training: TrainingApi, mirror: MirrorClient, signals: ReceivedSignals
) -> "RunEnding":
    """Run to the end and return it, whatever it is."""
    try:
        return _run(arguments, training, mirror, signals)
    except UserError as error:
        return error.exit_code, "failed", f"{type(error).__name__}: {error}", cause_of(error)
    except RunInterrupted as error:
        mirror.mark_preempting()
        return 128 + (signals.number or signal.SIGTERM), "killed", str(error), ""
    except (KeyboardInterrupt, SystemExit):  # a signal while the run was being prepared
        mirror.mark_preempting()
        return 128 + (signals.number or signal.SIGTERM), "killed", "stopped by a signal before the first step", ""
    except Exception as error:
        return EXIT_FAILED, "failed", f"{type(error).__name__}: {error}", cause_of(error)


RunEnding = tuple[int, str, str, str]  # exit code, state, reason, cause


def _run(arguments: list[str], training: TrainingApi, mirror: MirrorClient, signals: ReceivedSignals) -> RunEnding:
    """Run the config, or wait for another process on this machine that runs it already."""
    for variable in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):  # which become names of folders and files
        if not re.fullmatch(r"[\w-]{1,128}", os.environ.get(variable, "")):
            raise UserError(f"{variable}: {os.environ.get(variable)!r} is no id of W&B's")
    config = with_absolute_paths(resolve(parse_config(_parameter_values(arguments), "the sweep")))
    training.fetch_inputs([config], True)
    folder = RUNS / os.environ["WANDB_SWEEP_ID"]
    run_dir = folder / run_id(config, *training.fingerprint_inputs(config))
    _store_remote(folder)
    mirror.follow(run_dir)
    peers = _unfinished_configs(folder, training)
    module, _, name = training.run.partition(":")
    function = getattr(importlib.import_module(module), name)
    interrupted = StopPolicy(signals, mirror, run_dir)
    while True:
        try:
            with logging_to("stdout", run_dir / keys.LOG):
                function(config, run_dir, interrupted=interrupted, peers=peers)
            return 0, "finished", "", ""
        except RunTakenError as error:
            print(f"{error}; waits for its result")
        except (UserError, RunInterrupted):
            raise
        except Exception:
            with logging_to("stdout", run_dir / keys.LOG):
                logger.info(traceback.format_exc().rstrip())
            raise
        while claim.is_alive(run_dir) and not (run_dir / keys.SUMMARY).exists():
            time.sleep(POLL_SECONDS)
            if signals.number:
                raise RunInterrupted("stopped by a signal while another process ran this run")


def _parameter_values(arguments: list[str]) -> dict[str, Any]:
    """Return the sweep's values with their types, and those flags that the sweep file's `command` adds.

    Raises:
        ConfigError: an argument is no flag.
    """
    content = _parameters()
    values = {name: given["value"] for name, given in content.items() if isinstance(given, dict) and "value" in given}
    faults = []
    for argument in arguments:
        flag, equals, text = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or not equals:
            faults.append(f"{argument}: write --key=value.{nearest(name, Config.model_fields)}")
        elif name not in values:
            values[name] = text
    if faults:
        raise ConfigError(faults, "the command line")
    return values


def _parameters() -> dict[str, Any]:
    """Return what W&B's agent has written for this run."""
    path = Path(os.environ["WANDB_SWEEP_PARAM_PATH"])
    try:
        content = documents.load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as a run's parameters ({error})") from error
    return content if isinstance(content, dict) else {}


def _unfinished_configs(folder: Path, training: TrainingApi) -> list[Config] | None:
    """Return the configs of the sweep's runs that this machine has not finished, or None where they are not known.

    They are known where `agent.py` has stored the sweep (W&B's own agent is not told of it), and it is a plain grid.
    """
    try:
        spec = documents.load_yaml((folder / keys.SWEEP).read_text())
        if spec["method"] != "grid":
            return None
        parameters = spec["parameters"].values()
        # Without W&B's engine, which takes a second to import: all others of its parameters are not for grids.
        values = [given["values"] if "values" in given else [given["value"]] for given in parameters]
        if math.prod(map(len, values)) > MAX_PEERS:
            return None
        points = [dict(zip(spec["parameters"], point, strict=True)) for point in itertools.product(*values)]
        configs = [with_absolute_paths(resolve(parse_config(point, "the sweep"))) for point in points]
        runs = {run_id(config, *training.fingerprint_inputs(config)): config for config in configs}
        return [config for name, config in runs.items() if files.status(folder / name)[0] != "finished"]
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError, UserError):
        return None


def _store_remote(folder: Path) -> None:
    """Note beside the run directories which sweep of which server they belong to."""
    if not (folder / keys.REMOTE).exists():
        with raising_write_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
        names = {"entity": "WANDB_ENTITY", "project": "WANDB_PROJECT", "sweep": "WANDB_SWEEP_ID"}
        documents.write_json(folder / keys.REMOTE, {name: os.environ.get(key) for name, key in names.items()})


class StopPolicy:
    """Whether the run is to save and end now: after a signal, unless it means that the server stops the run early.

    W&B's agent tells a run to stop by SIGTERM, as a batch system does before it takes the machine away. Only the
    server knows which it is. A run that is stopped early ends after its epoch, and is tested.
    """

    def __init__(self, signals: ReceivedSignals, mirror: MirrorClient, run_dir: Path) -> None:
        self._signals, self._mirror, self._stop = signals, mirror, run_dir / keys.STOP
        self._deadline: float | None = None

    def __call__(self) -> bool:
        if self._signals.number not in (0, signal.SIGTERM):
            return True
        if self._mirror.stop:
            if not self._stop.exists():
                with contextlib.suppress(WriteError):  # on a full disk the run goes on, and this is tried again
                    write_atomic(self._stop, "W&B asked the run to stop\n")
            return False
        if not self._signals.number:
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + mirror_client.ASK_SECONDS
            self._mirror.ask_stop()
        return self._mirror.stop is False or time.monotonic() > self._deadline


def _say_missed(mirror: MirrorClient, state: str) -> None:
    """Say what to do about what W&B has not got."""
    folder = RUNS / os.environ["WANDB_SWEEP_ID"]
    why = f" ({mirror.error})" if mirror.error else ""
    if state != "finished":
        print(f"W&B has not been told all of this{why}; what there is of the run is in {folder}/", file=sys.stderr)
        return
    print(f"W&B has not got all of this run{why}; it is complete in {folder}/. To send the rest: "
          f"make publish SWEEP={folder}", file=sys.stderr)  # fmt: skip


def _end_with_agent(agent: int, signals: ReceivedSignals) -> None:
    """Ask this process to save and end once the agent that started it is gone, unless it has been asked already."""
    while os.getppid() == agent:
        time.sleep(1)
    if not signals.number:  # a second signal would end it before it has saved
        os.kill(os.getpid(), signal.SIGTERM)

"""One run that W&B's agent hands to a process: `python agent.py --lr=0.001 ...` with WANDB_RUN_ID set.

The config is checked like any other. The run goes to runs/<sweep id>/<strategy>-<hash>/, and a process of its own
mirrors it to W&B; the run goes on if that fails. A run that this machine has finished before, under another W&B id, is
not repeated: its results are sent.
"""

import contextlib
import importlib
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from finetune.config import Config, parse_config
from finetune.errors import EXIT_FAILED, ConfigError, RunInterrupted, UserError, nearest
from finetune.resolve import resolve, run_id, with_absolute_paths
from finetune.rundir import claim, files, keys
from finetune.rundir.claim import RunTakenError
from finetune.rundir.failures import cause_of
from finetune.sweep import devices, search
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
# A batch system's signal reaches a run up to three times: directly, from W&B's agent, and from the agent's parent.
SAME_REQUEST_SECONDS = 5.0
MAX_PEERS = 1000  # with more runs, their configs are not worth reading


def is_trial() -> bool:
    """Return whether W&B's agent has started this process."""
    return "WANDB_SWEEP_PARAM_PATH" in os.environ and "WANDB_RUN_ID" in os.environ


def run_trial(arguments: list[str], training: TrainingApi) -> int:
    """Execute the run of this process and return the exit code (see errors.py; 130 and 143 after a signal).

    Args:
        arguments: the command line, `--key=value`.
    """
    agent = os.getppid()
    devices.prefer_as_oom_victim()
    mirror = MirrorClient(mirror_client.run_ref_from_environment())
    with handle_signals(same_request_seconds=SAME_REQUEST_SECONDS) as signals:
        threading.Thread(target=_end_with_agent, args=(agent, signals), name="agent watch", daemon=True).start()
        end = _run_to_end(arguments, training, mirror, signals)
        if end.reason:
            print(end.reason, file=sys.stderr)
        with polling_signals():  # a first signal changes nothing here: the wait for W&B is limited
            if not mirror.end(*end):
                _print_unsent(mirror, end.state)
    return end.code


class RunEnd(NamedTuple):
    """How a run ended: exit code, state (finished, failed or killed), reason and cause."""

    code: int
    state: str
    reason: str = ""
    cause: str = ""


def _run_to_end(arguments: list[str], training: TrainingApi, mirror: MirrorClient, signals: ReceivedSignals) -> RunEnd:
    """Execute the run and return how it ended."""
    try:
        _run(arguments, training, mirror, signals)
        return RunEnd(0, "finished")
    except UserError as error:
        return RunEnd(error.exit_code, "failed", f"{type(error).__name__}: {error}", cause_of(error))
    except RunInterrupted as error:
        mirror.mark_preempting()
        return RunEnd(128 + (signals.number or signal.SIGTERM), "killed", str(error))
    except (KeyboardInterrupt, SystemExit):  # a signal while the run was being prepared
        mirror.mark_preempting()
        return RunEnd(128 + (signals.number or signal.SIGTERM), "killed", "stopped by a signal before the first step")
    except Exception as error:
        return RunEnd(EXIT_FAILED, "failed", f"{type(error).__name__}: {error}", cause_of(error))


def _run(arguments: list[str], training: TrainingApi, mirror: MirrorClient, signals: ReceivedSignals) -> None:
    """Execute the run, or wait until another process on this machine has done so."""
    for variable in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):  # these become names of folders and files
        if not re.fullmatch(r"[\w-]{1,128}", os.environ.get(variable, "")):
            raise UserError(f"{variable}: {os.environ.get(variable)!r} is no W&B id")
    config = with_absolute_paths(resolve(parse_config(_parameter_values(arguments), "the sweep")))
    training.fetch_inputs([config], True)
    folder = RUNS / os.environ["WANDB_SWEEP_ID"]
    run_dir = folder / run_id(config, *training.fingerprint_inputs(config))
    _store_address(folder)
    mirror.follow(run_dir)
    peers = _unfinished_configs(folder, training)
    module, _, name = training.run.partition(":")
    function = getattr(importlib.import_module(module), name)
    interrupted = StopPolicy(signals, mirror, run_dir)
    while True:
        try:
            with logging_to("stdout", run_dir / keys.LOG):
                function(config, run_dir, interrupted=interrupted, peers=peers)
            return
        except RunTakenError as error:
            print(f"{error}; waiting for its result")
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
    """Return the sweep's parameters with their types, and the flags that the sweep file's `command` adds.

    Raises:
        ConfigError: an argument is no flag.
    """
    values = {
        name: item["value"] for name, item in _read_parameters().items() if isinstance(item, dict) and "value" in item
    }
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


def _read_parameters() -> dict[str, Any]:
    """Return the content of the parameter file that W&B's agent has written for this run."""
    path = Path(os.environ["WANDB_SWEEP_PARAM_PATH"])
    try:
        content = documents.load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read as a run's parameters ({error})") from error
    return content if isinstance(content, dict) else {}


def _unfinished_configs(folder: Path, training: TrainingApi) -> list[Config] | None:
    """Return the configs of the sweep's runs that this machine has not finished; None if they are not known.

    They are known if the sweep is a plain grid, and `agent.py` has stored its file, which W&B's own agent does not.
    """
    try:
        spec = documents.load_yaml((folder / keys.SWEEP).read_text(encoding="utf-8"))
        if spec["method"] != "grid":
            return None
        points = list(itertools.islice(search.plain_grid_points(spec) or (), MAX_PEERS + 1))
        if not 0 < len(points) <= MAX_PEERS:
            return None
        configs = [with_absolute_paths(resolve(parse_config(point, "the sweep"))) for point in points]
        runs = {run_id(config, *training.fingerprint_inputs(config)): config for config in configs}
        return [config for name, config in runs.items() if files.status(folder / name)[0] != "finished"]
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError, UserError):
        return None


def _store_address(folder: Path) -> None:
    """Write the address of the sweep on the server into the folder of its run directories."""
    if not (folder / keys.REMOTE).exists():
        with raising_write_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
        variables = {"entity": "WANDB_ENTITY", "project": "WANDB_PROJECT", "sweep": "WANDB_SWEEP_ID"}
        documents.write_json(folder / keys.REMOTE, {name: os.environ.get(key) for name, key in variables.items()})


class StopPolicy:
    """Decides whether the run saves and ends now: after a signal, unless the server is stopping the run early.

    W&B's agent stops a run by SIGTERM, and so does a batch system before it takes the machine away; only the server
    knows which of them it was. A run that is stopped early finishes its epoch and is tested.
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


def _print_unsent(mirror: MirrorClient, state: str) -> None:
    """Print where the run is that W&B has not received completely, and how to send the rest."""
    folder = RUNS / os.environ["WANDB_SWEEP_ID"]
    reason = f" ({mirror.error})" if mirror.error else ""
    if state == "finished":
        message = f"it is complete in {folder}/. To send the rest: make publish SWEEP={folder}"
    else:
        message = f"its files are in {folder}/"
    print(f"W&B has not got all of this run{reason}; {message}", file=sys.stderr)


def _end_with_agent(agent: int, signals: ReceivedSignals) -> None:
    """Send this process SIGTERM once the agent that started it is gone, unless it has received a signal before."""
    while os.getppid() == agent:
        time.sleep(1)
    if not signals.number:  # a second signal would end it before it has saved
        os.kill(os.getpid(), signal.SIGTERM)

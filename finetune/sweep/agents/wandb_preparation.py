"""What has to be in place before runs of a W&B sweep start on this machine: folder, program, data, weights."""

import contextlib
import sys
from pathlib import Path

import yaml

from finetune.config import Config, parse_config
from finetune.errors import UserError
from finetune.resolve import resolve, with_absolute_paths
from finetune.rundir import keys
from finetune.sweep import search
from finetune.sweep.agents.training_api import TrainingApi
from finetune.sweep.display import console
from finetune.sweep.sweep_file import RUNS
from finetune.system import documents
from finetune.system.atomic import raising_write_error, write_atomic
from finetune.system.environment import ROOT
from finetune.system.redaction import redact_values
from finetune.tracking.sweep_server import WandbSweep


def store_sweep(sweep: WandbSweep) -> Path:
    """Write the sweep's file and address into the folder of its run directories; return the folder.

    Raises:
        UserError: the sweep's program is not on this machine, so that W&B's agent would use up each run without
            starting it; or a parameter holds a secret, which W&B's agent would write into files and logs.
    """
    program = sweep.spec.get("program")
    if program and not Path(str(program)).is_file():
        raise UserError(f"{sweep.path} runs {program}, and there is none in {Path.cwd()}: start this in {ROOT}")
    parameters = sweep.spec.get("parameters") or {}
    secret = [name for name, parameter in parameters.items() if redact_values(parameter) != parameter]
    if secret:
        raise UserError(
            f"{sweep.path}: a password, token or key is in {', '.join(secret)}, which W&B and its agents show in "
            "plain text: renew it, and make a sweep without it"
        )
    folder = RUNS / sweep.id
    with raising_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    spec = redact_values(sweep.spec)  # `sweep.spec`, with which runs are started, stays in memory
    write_atomic(folder / keys.SWEEP, yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))
    address = {"entity": sweep.entity, "project": sweep.project, "sweep": sweep.id, "url": sweep.url}
    documents.write_json(folder / keys.REMOTE, address)
    return folder


def fetch_sweep(sweep: WandbSweep, training: TrainingApi) -> None:
    """Download missing data and weights of the sweep's runs, unless they are runs of another program.

    Raises:
        UserError: something can't be fetched. A run without it would fail, and W&B never hands it out again.
    """
    program = sweep.spec.get("program")
    if program is None or Path(str(program)).resolve() == Path(sys.argv[0]).resolve():
        training.fetch_inputs(_configs(sweep), True)


def prepare_inputs(sweep: WandbSweep, training: TrainingApi) -> None:
    """Fetch and check data and weights before runs start side by side; a faulty config is left to its run's log.

    Raises:
        UserError: as `fetch_sweep` does.
    """
    fetch_sweep(sweep, training)
    configs: list[Config] = []
    try:
        for config in _configs(sweep):
            with contextlib.suppress(UserError):
                if (config.backbone, config.weights) not in {(known.backbone, known.weights) for known in configs}:
                    training.fingerprint_inputs(config)
                    configs.append(config)
        training.check_inputs(configs)
    except Exception as error:  # of any kind: the runs will meet it too, and each has a log
        console.print(f"not prepared: {error}")


def _configs(sweep: WandbSweep) -> list[Config]:
    """Return the valid configs of a grid, or of points from all over the space of a search."""
    spec, configs = sweep.spec, []
    try:
        points = search.grid_points(spec) if spec["method"] == "grid" else search.spanning_points(spec, sweep.id)
    except Exception:  # the engine's own, of many kinds; the server decides how to read the file
        return []
    for point in points:
        with contextlib.suppress(UserError):
            configs.append(with_absolute_paths(resolve(parse_config(point, "the sweep"))))
    return configs

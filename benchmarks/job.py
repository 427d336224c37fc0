"""One measurement in a process of its own, whose peak memory it is: `python -m benchmarks.job JOB OUT`.

JOB is JSON: `kind` (train, loader or floor) and the keyword arguments of its function.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import baselines, plain, roofline
from finetune.config import parse_config
from finetune.models.device import device_of
from finetune.resolve import resolve
from finetune.system.documents import write_json
from finetune.system.output import command

Fields = dict[str, Any]  # of a config


def train(contender: str, fields: Fields, warm_up: str | None = None) -> dict[str, Any]:
    """Return the result of the contender's train().

    Args:
        warm_up: a tiny folder of images to train on before. The first pass through a network prepares kernels and
            memory, which takes no time that matters in a real run. With it, contenders that have caches do a further
            run on the same caches.
    """
    function = baselines.trainer(contender)
    if warm_up is not None:
        function(parse_config({**fields, "data": warm_up}, "the benchmark"))
    config = parse_config(fields, "the benchmark")
    has_frozen = (resolve(config).unfreeze or [(0, 1.0)])[0][1] < 1
    is_repeated = warm_up is not None and contender in baselines.OURS and has_frozen
    return function(config, **({"again": True} if is_repeated else {}))


def loader(contender: str, fields: Fields) -> dict[str, Any]:
    """Return the seconds of loading: `first`, of the epoch that fills the cache, and `seconds`, of each later one.

    Args:
        contender: plain, or `on` or `off` for ours with or without its cache.
    """
    config = parse_config(fields, "the benchmark")
    if contender == baselines.PLAIN:
        seconds = [row["seconds/loader"] for row in plain.train(config)["epochs"]]
    else:
        from benchmarks import ours  # the plain loop's process does without, as its memory is measured

        seconds = ours.loader_seconds(config, contender)
    return {"first": seconds[0], "seconds": seconds[1:]}


def floors(fields: dict[str, Fields], device: str) -> dict[str, Any]:
    """Return `peaks`, FLOP/s by precision, and `work` of each strategy, see roofline.py."""
    work = {name: roofline.work(parse_config(values, "the benchmark")) for name, values in fields.items()}
    chosen = device_of(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
    return {"peaks": roofline.measure_peaks(chosen), "work": work, "device": name}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {"train": train, "loader": loader, "floor": floors}


@command
def main(arguments: list[str]) -> int:
    """Do the job and write its result into the file OUT; return the exit code."""
    job = json.loads(arguments[0])
    write_json(Path(arguments[1]), KINDS[job.pop("kind")](**job))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

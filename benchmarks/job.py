"""One measurement in a process of its own, so that its peak memory is its own: `python -m benchmarks.job FILE OUT`.

FILE holds the job as JSON: `kind` (train, loader or floor) and the keyword arguments of the function of that name.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import baselines, plain, roofline
from finetune.config import parse_config
from finetune.resolve import resolve
from finetune.system.documents import write_json
from finetune.system.output import command

Fields = dict[str, Any]  # of a config


def train(contender: str, fields: Fields, warm_up: str | None, again: bool) -> dict[str, Any]:
    """Return what the contender's train() returns, after it has trained on `warm_up`, a tiny folder, if given.

    The first pass through a network prepares kernels and memory; in a real run that is soon forgotten.

    Args:
        again: whether the contender is asked for a further run on the same caches.
    """
    function = baselines.trainer(contender)
    if warm_up is not None:
        function(parse_config({**fields, "data": warm_up}, "the benchmark"))
    config = parse_config(fields, "the benchmark")
    shares = [share for _, share in resolve(config).unfreeze or []]
    more = {"again": True} if again and contender in baselines.OURS and shares[0] < 1 else {}
    return function(config, **more)


def loader(contender: str, fields: Fields) -> dict[str, Any]:
    """Return `seconds` of loading each epoch but the first, and `first`, in which a cache is filled, if there is one.

    Args:
        contender: plain, or ours with the cache `on` or `off`.
    """
    config = parse_config(fields, "the benchmark")
    if contender == baselines.PLAIN:
        seconds = [row["seconds/loader"] for row in plain.train(config)["epochs"]]
    else:
        from benchmarks import ours

        seconds = ours.loader_seconds(config, contender)
    return {"first": seconds[0], "seconds": seconds[1:]}


def floors(fields: dict[str, Fields], device: str) -> dict[str, Any]:
    """Return `peaks`, FLOP/s by precision, and `work` of each strategy, see roofline.py."""
    work = {name: roofline.work(parse_config(values, "the benchmark")) for name, values in fields.items()}
    picked = plain.pick_device(device)
    name = torch.cuda.get_device_name(picked) if picked.type == "cuda" else picked.type
    return {"peaks": roofline.measure_peaks(picked), "work": work, "device": name}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {"train": train, "loader": loader, "floor": floors}


@command
def main(arguments: list[str]) -> int:
    """Do the job in the file and write its result; return the exit code."""
    job = json.loads(Path(arguments[0]).read_text())
    write_json(Path(arguments[1]), KINDS[job.pop("kind")](**job))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

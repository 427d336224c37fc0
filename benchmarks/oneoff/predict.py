"""How fast `finetune.predict` is beside a run's own evaluation of the same pictures.

    python -m benchmarks.oneoff.predict RUN DIR [--threads 1] [--rounds 3] [--pictures 1000]

In each round first one and then the other reads the pictures below DIR from their files and names them; the order
changes from round to round. The files are read once before, so that no side waits for the disk. Processor time tells
what work there is where others use the machine, too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from finetune.data.dataset import EpochBatchSampler, ImageDataset, make_loader, worker_count
from finetune.data.layout import find_pictures
from finetune.data.splits import Sample
from finetune.data.transforms import eval_transform, normalise
from finetune.inference.predictor import TrainedModel, load_trained, predict_files
from finetune.rundir import find
from finetune.system.progress_bar import progress_bar
from finetune.training.batch_source import BatchStream
from finetune.training.evaluation import predict


def main() -> int:
    """Print pictures a second of both, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.oneoff.predict", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=1000)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    trained = load_trained(find.find_checkpoint(known.run))
    paths = list(find_pictures(known.dir))[: known.pictures]
    for path in paths:
        path.read_bytes()
    sides: dict[str, Callable[[], list[int]]] = {
        "evaluation": lambda: _evaluate(trained, known.dir, paths),
        "predict": lambda: _predict(trained, paths),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, list[int]] = {}
    with progress_bar("rounds") as show:
        for number in range(known.rounds):
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                started, busy = time.perf_counter(), time.process_time()
                said[name] = sides[name]()
                speeds[name].append(len(paths) / (time.perf_counter() - started))
                processor[name].append((time.process_time() - busy) / len(paths) * 1000)
            show(number + 1, known.rounds)
    same = sum(ours == theirs for ours, theirs in zip(*said.values(), strict=True))
    for name, values in speeds.items():
        rounds = ", ".join(f"{value:.1f}" for value in values)
        busy = statistics.median(processor[name])
        print(
            f"{name:10}  {statistics.median(values):7.1f} pictures/s ({rounds}), {busy:.1f} ms of processor time each"
        )
    ratio = statistics.median(speeds["predict"]) / statistics.median(speeds["evaluation"])
    print(f"predict is {ratio:.2f} times as fast, {known.threads} threads; {same} of {len(paths)} answers are the same")
    return 0


def _evaluate(trained: TrainedModel, root: Path, paths: list[Path]) -> list[int]:
    """Return the labels that a run's evaluation gives, loading as it does without a cache."""
    pictures = [Sample(path.relative_to(root).as_posix(), 0) for path in paths]
    dataset = ImageDataset(root, pictures, trained.to, eval_transform(trained.to))
    batches = EpochBatchSampler(len(pictures), 64, seed=None)
    device = trained.device
    loader = make_loader(dataset, batches, worker_count(None, device.type), pin=device.type == "cuda")
    fed = ((normalise(images.to(device), trained.to), labels) for images, labels in loader)
    scores, _ = predict(trained.model, BatchStream(0, len(batches), fed), device, None)
    return [int(label) for label in scores.argmax(axis=1)]


def _predict(trained: TrainedModel, paths: list[Path]) -> list[int]:
    return [trained.classes.index(answer.ranked[0][0]) for answer in predict_files(trained, paths, 1, [])]


if __name__ == "__main__":
    sys.exit(main())

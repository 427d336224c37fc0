"""How fast `finetune.predict` is beside a run's own evaluation of the same images.

    python -m benchmarks.oneoff.predict RUN DIR [--threads 1] [--rounds 3] [--pictures 1000]

In each round both read the images below DIR from their files and classify them; their order changes from round to
round. The files are read once before, so that neither waits for the disk. Processor time is comparable also where
others use the machine.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from finetune.data.dataset import EpochBatchSampler, ImageDataset, make_loader, worker_count
from finetune.data.layout import find_images
from finetune.data.splits import Sample
from finetune.data.transforms import eval_transform, normalise
from finetune.inference.predictor import TrainedModel, load_trained, predict_files
from finetune.rundir import find
from finetune.system.progress_bar import track
from finetune.training.batch_source import BatchStream
from finetune.training.evaluation import predict


def main() -> int:
    """Print images per second of both, and return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.oneoff.predict", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    trained = load_trained(find.find_checkpoint(args.run))
    paths = list(find_images(args.dir))[: args.pictures]
    for path in paths:
        path.read_bytes()
    sides: dict[str, Callable[[], list[int]]] = {
        "evaluation": lambda: _evaluate(trained, args.dir, paths),
        "predict": lambda: _predict(trained, paths),
    }
    labels: dict[str, list[int]] = {}
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    processor_ms: dict[str, list[float]] = {name: [] for name in sides}
    for number in track(range(args.rounds), args.rounds, "rounds"):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            started, busy = time.perf_counter(), time.process_time()
            labels[name] = sides[name]()
            speeds[name].append(len(paths) / (time.perf_counter() - started))
            processor_ms[name].append((time.process_time() - busy) / len(paths) * 1000)
    for name, values in speeds.items():
        rounds = ", ".join(f"{value:.1f}" for value in values)
        time_text = f"{statistics.median(processor_ms[name]):.1f} ms of processor time each"
        print(f"{name:10}  {statistics.median(values):7.1f} images/s ({rounds}), {time_text}")
    ratio = statistics.median(speeds["predict"]) / statistics.median(speeds["evaluation"])
    same = sum(own == other for own, other in zip(*labels.values(), strict=True))
    print(f"predict is {ratio:.2f} times as fast, {args.threads} threads; {same} of {len(paths)} labels are the same")
    return 0


def _evaluate(trained: TrainedModel, root: Path, paths: list[Path]) -> list[int]:
    """Return the labels of a run's evaluation, which loads images as it does without a cache."""
    samples = [Sample(path.relative_to(root).as_posix(), 0) for path in paths]
    dataset = ImageDataset(root, samples, trained.preprocessing, eval_transform(trained.preprocessing))
    batches = EpochBatchSampler(len(samples), 64, seed=None)
    device = trained.device
    loader = make_loader(dataset, batches, worker_count(None, device.type), pin=device.type == "cuda")
    stream = ((normalise(images.to(device), trained.preprocessing), labels) for images, labels in loader)
    scores, _ = predict(trained.model, BatchStream(start=0, cut=0, steps=len(batches), batches=stream), device, None)
    return [int(label) for label in scores.argmax(axis=1)]


def _predict(trained: TrainedModel, paths: list[Path]) -> list[int]:
    return [trained.classes.index(prediction.ranked[0][0]) for prediction in predict_files(trained, paths, 1, [])]


if __name__ == "__main__":
    sys.exit(main())

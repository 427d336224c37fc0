"""The answers of a trained network on picture files, one after another: decoding goes on while the network computes."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from finetune.data.reading import read_picture
from finetune.data.transforms import Preprocessing, eval_transform, stack, to_base
from finetune.errors import DataError
from finetune.trained import Trained

BATCH_SIZE = 64
AHEAD = 2 * BATCH_SIZE  # pictures that are decoded before they are asked for
MOST_THREADS = 8


class Answer(NamedTuple):
    """What the network says of a picture.

    Attributes:
        ranked: (class name, probability), the likeliest first.
    """

    path: Path
    ranked: list[tuple[str, float]]


def answers(trained: Trained, paths: Iterable[Path], top: int, unreadable: list[str]) -> Iterator[Answer]:
    """Yield the answers on the pictures that can be read, in order; add a line for each other one to `unreadable`.

    Args:
        top: classes that are told of each picture, at most all.
    """
    threads = min(MOST_THREADS, torch.get_num_threads())
    with closing(squares(paths, trained.to, threads)) as found:
        while group := list(islice(found, BATCH_SIZE)):
            unreadable += [str(square) for _, square in group if isinstance(square, DataError)]
            read = [(path, square) for path, square in group if isinstance(square, Tensor)]
            if not read:
                continue
            probabilities, order = trained.probabilities(stack([square for _, square in read])).topk(top)
            for (path, _), row, labels in zip(read, probabilities.tolist(), order.tolist(), strict=True):
                yield Answer(path, [(trained.classes[label], p) for label, p in zip(labels, row, strict=True)])


def squares(paths: Iterable[Path], to: Preprocessing, threads: int) -> Generator[tuple[Path, Tensor | DataError]]:
    """Yield each picture as evaluation sees it, (3, side, side) uint8, or why it can't be read; in order."""
    rest = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[tuple[Path, Future[Tensor | DataError]]] = deque()
        try:
            for path in islice(rest, AHEAD):
                under_way.append((path, pool.submit(_square, path, to)))
            while under_way:
                path, square = under_way.popleft()
                yield path, square.result()
                for following in islice(rest, 1):
                    under_way.append((following, pool.submit(_square, following, to)))
        finally:
            for _, square in under_way:
                square.cancel()


def _square(path: Path, to: Preprocessing) -> Tensor | DataError:
    try:
        return eval_transform(to)(to_base(read_picture(path), to))
    except DataError as error:
        return error

"""Unequal classes: weights for the loss, or an order in which all classes are equally frequent; subsampling."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from finetune.data.splits import Sample, Splits
from finetune.seeds import stream_seed


def class_weights(labels: Iterable[int], classes: int) -> list[float]:
    """Return a weight for each class, (classes,): all images / (classes that have any * the class's images).

    scikit-learn's "balanced" (King and Zeng, Logistic Regression in Rare Events Data, 2001): together, the images of
    each class weigh the same, and the mean weight of a training image is 1. A class without images gets 0.

    Args:
        labels: of the training images.
    """
    counts = Counter(labels)
    share = counts.total() / len(counts)
    return [share / counts[label] if counts[label] else 0.0 for label in range(classes)]


def balanced_order(labels: Sequence[int], seed: int, epoch: int) -> list[int]:
    """Return as many positions as there are images, (N,): each class as often as any other, give or take one.

    Positions are dealt to the classes in turn, from the first epoch on. A class hands out its images in an order that
    is drawn anew once all have been used: a rare one comes several times in an epoch, a common one goes round over
    several epochs, and no image of a class is used again before all others have been. All of it follows from seed
    and epoch alone.

    Args:
        labels: of the images, by position.
        epoch: epochs finished.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        members[label].append(position)
    classes, count = sorted(members), len(labels)
    drawn: list[int] = []
    # In an order of the seed's own: the remainder of an uneven deal is not always the same classes'.
    for hand, number in enumerate(_permutation(len(classes), seed, "order", "classes")):
        samples = members[classes[number]]
        begin, end = (-(-(cards - hand) // len(classes)) for cards in (epoch * count, (epoch + 1) * count))
        for turn in range(begin // len(samples), -(-end // len(samples))):
            order = _permutation(len(samples), seed, "order", "class", classes[number], turn)
            first = turn * len(samples)
            drawn += [samples[index] for index in order[max(begin - first, 0) : end - first]]
    return [drawn[index] for index in _permutation(count, seed, "order", epoch)]


def _permutation(count: int, *stream: int | str) -> list[int]:
    """Return the numbers below `count` in an order that the named stream draws."""
    generator = torch.Generator().manual_seed(stream_seed(*stream))
    return torch.randperm(count, generator=generator).tolist()


def subsample_train(splits: Splits, share: float, split_seed: int) -> Splits:
    """Return the splits with a stratified `share` of train, at least one image a class.

    Images, or groups of images, are drawn by a hash of seed and path (or group), so that a smaller share is part of a
    larger one: what a curve over shares shows is then more images, not other ones.

    Args:
        share: in (0, 1]; 1 changes nothing.
    """
    if share == 1:
        return splits
    by_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in splits.train:
        by_class[sample.label].append(sample)

    def drawn(name: tuple[bool, str]) -> bytes:
        return hashlib.sha256(f"part {split_seed}/{name[1]}".encode()).digest()

    def unit(sample: Sample) -> tuple[bool, str]:
        return sample.path in splits.groups, splits.groups.get(sample.path, sample.path)

    kept: set[tuple[bool, str]] = set()
    for samples in by_class.values():
        images = Counter(map(unit, samples))
        wanted = max(1, round(share * len(samples)))
        for name in sorted(images, key=drawn):
            if wanted <= 0:
                break
            kept.add(name)
            wanted -= images[name]
    train = tuple(sample for sample in splits.train if unit(sample) in kept)
    note = f"of the {len(splits.train):,} training images, {len(train):,} train (train_share {share:g}), stratified"
    return replace(splits, train=train, notes=(*splits.notes, note))

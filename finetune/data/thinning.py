"""A part of the training pictures, to see what fewer of them would do; val and test stay what they are."""

import hashlib
from collections import defaultdict
from dataclasses import replace

from finetune.data.splits import Picture, Splits


def thinned(splits: Splits, share: float, split_seed: int) -> Splits:
    """Return the splits with a stratified `share` of train, at least one picture a class.

    Pictures are drawn by a hash of seed and path, so that a smaller share is part of a larger one: what a curve over
    shares shows is then more pictures, not other ones.

    Args:
        share: in (0, 1]; 1 changes nothing.
    """
    if share == 1:
        return splits
    by_class: dict[int, list[Picture]] = defaultdict(list)
    for picture in splits.train:
        by_class[picture.label].append(picture)

    def drawn(picture: Picture) -> bytes:
        return hashlib.sha256(f"part {split_seed}/{picture.path}".encode()).digest()

    kept = {
        picture
        for pictures in by_class.values()
        for picture in sorted(pictures, key=drawn)[: max(1, round(share * len(pictures)))]
    }
    train = tuple(picture for picture in splits.train if picture in kept)
    told = f"of the {len(splits.train):,} training pictures, {len(train):,} train (train_share {share:g}), stratified"
    return replace(splits, train=train, how=(*splits.how, told))

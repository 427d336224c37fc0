"""The order of a sweep's runs: breadth first, so that a sweep that is cut short has tried a bit of everything."""

from collections import Counter
from collections.abc import Hashable, Sequence

from finetune.config import Config, to_dict
from finetune.resolve import recipe

FIRST = (
    "strategy",
    "unfreeze",
    "lr",
)  # what to see all of first; a strategy is a schedule, so `unfreeze` belongs to it


def breadth_first(configs: Sequence[Config]) -> list[int]:
    """Return the indices of resolved configs in the order to run them in.

    Every strategy comes once before one comes again, then every schedule of each, then every rate with these, then
    every recipe, and only then a recipe's second seed or fold, for which the same holds again. Otherwise the order
    stays.
    """
    ranks: list[tuple[int, ...]] = [() for _ in configs]
    keys = [_keys(config) for config in configs]
    # From the finest key to the coarsest: a run's rank is how many runs of the same key, alike in rank so far, come
    # before it. So the runs of rank 0 hold each value of the key once, and all of them go before those of rank 1.
    for level in zip(*keys, strict=True):
        seen = Counter[tuple[Hashable, ...]]()
        for index, key in enumerate(level):
            group = (*ranks[index], key)
            ranks[index] += (seen[group],)
            seen[group] += 1
    return sorted(range(len(configs)), key=lambda index: (ranks[index], index))


def _keys(config: Config) -> list[str]:
    """Return what a run has in common with others: the recipe, then strategy, schedule and rate, and fewer of these."""
    fields = to_dict(config)
    return [recipe(config), *(str([fields[name] for name in FIRST[:count]]) for count in range(len(FIRST), 0, -1))]

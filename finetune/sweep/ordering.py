"""The order of a sweep's runs: breadth first, so that a sweep that is cut short has tried some of everything."""

from collections import Counter
from collections.abc import Hashable, Sequence

from finetune.config import Config, to_dict
from finetune.resolve import recipe

# All values of these come first; `unfreeze` follows the strategy because a strategy is a schedule.
FIELDS_FIRST = ("strategy", "unfreeze", "lr")


def breadth_first(configs: Sequence[Config]) -> list[int]:
    """Return the indices of resolved configs in the order in which to run them.

    Every strategy comes once before one comes again, then every schedule of each, then every rate with these, then
    every recipe, and only then a recipe's second seed or fold, for which the same holds again. Otherwise the order
    stays.
    """
    ranks: list[tuple[int, ...]] = [() for _ in configs]
    keys = [_grouping_keys(config) for config in configs]
    # From the finest key to the coarsest: a run's rank is how many runs of the same key, alike in rank so far, come
    # before it. So the runs of rank 0 hold each value of the key once, and all of them go before those of rank 1.
    for level in zip(*keys, strict=True):
        counts = Counter[tuple[Hashable, ...]]()
        for index, key in enumerate(level):
            group = (*ranks[index], key)
            ranks[index] += (counts[group],)
            counts[group] += 1
    return sorted(range(len(configs)), key=lambda index: (ranks[index], index))


def _grouping_keys(config: Config) -> list[str]:
    """Return grouping keys from fine to coarse: recipe, (strategy, schedule, lr), (strategy, schedule), (strategy)."""
    fields = to_dict(config)
    prefixes = [FIELDS_FIRST[:count] for count in range(len(FIELDS_FIRST), 0, -1)]
    return [recipe(config), *(str([fields[name] for name in prefix]) for prefix in prefixes)]

"""Which augmented view of each picture an epoch sees, and at which size; pure functions of config and epoch."""

import torch

from finetune.config import Config
from finetune.seeds import stream_seed

RESIZING_STAGES = 4  # Tan and Le, EfficientNetV2, arXiv 2104.00298, table 6


def view_at(epoch: int, views: int, seed: int) -> int:
    """Return the view, from 0 to `views` - 1, for the epoch after `epoch` finished ones.

    The views take turns: each comes once in `views` epochs, in an order of the seed's own that is drawn anew for each
    turn. So seeds share views, which are computed once, and yet differ in more than the order of pictures.
    """
    turn, place = divmod(epoch, views)
    generator = torch.Generator().manual_seed(stream_seed(seed, "views", turn))
    return int(torch.randperm(views, generator=generator)[place])


def draw(view: int) -> str:
    """Return the name of the random stream that augments a view; no seed of a run is in it."""
    return f"view {view}"


def augmentation_of(config: Config) -> str:
    """Return how training pictures are augmented: runs that agree in it share views of the same pictures."""
    return f"{config.augment}, erasing {config.erasing}" if config.erasing else config.augment


def side_at(epoch: int, epochs: int, start_px: int | None, px: int) -> int:
    """Return the side of the training pictures in pixels: from `start_px` to `px` in four equal stages.

    Progressive resizing (EfficientNetV2, section 4), without its second half: the strength of augmentation and
    regularisation stays the same. Sides in between are multiples of 8.
    """
    stage = min(RESIZING_STAGES * epoch // epochs, RESIZING_STAGES - 1)
    if start_px is None or stage == RESIZING_STAGES - 1:
        return px
    if stage == 0:
        return start_px
    return 8 * round((start_px + (px - start_px) * stage / (RESIZING_STAGES - 1)) / 8)

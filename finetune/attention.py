"""Where a trained network looked: `python -m finetune.attention RUN|best [--data DIR]` writes `attention.zip`.

The pictures are those of the prediction grid (see showcase.py): the middle of each, which is all that the network
sees, in grey, and the parts that speak for its answer in colour. The maps are Grad-CAM's (Selvaraju et al., arXiv
1610.02391), taken at the last block whose output still has places: coarse, and no explanation, but enough to see a
network that looks at the background.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from finetune import showcase
from finetune.errors import EXIT_BAD_INPUT, UserError
from finetune.rundir import files, find, keys
from finetune.showcase import Array
from finetune.system.output import command, fail
from finetune.system.progress_bar import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.model import Classifier
    from finetune.trained import Trained

COLOUR = (255, 120, 0)  # over grey; where it is strongest, it covers this share of the picture:
STRONGEST = 0.75
BATCH_SIZE = 16
BY_TOKENS = ("swin",)  # their maps are (B, side, side, C), which a side of as many channels would hide


@command
def main(arguments: list[str]) -> int:
    """Write the maps, say where; return the exit code: 2 where the network or its pictures do not allow it."""
    parser = argparse.ArgumentParser(
        "python -m finetune.attention", description="Draw where a network looked, for the prediction grid."
    )
    parser.add_argument("run", metavar="RUN", help=find.HELP)
    parser.add_argument("--data", type=Path, metavar="DIR", help="the pictures (default: where the run had them)")
    given = parser.parse_args(arguments)
    try:
        checkpoint = find.find_checkpoint(given.run)
        run_dir = checkpoint.parent
        paths = _shown(run_dir)
        root = given.data or _data_root(run_dir)

        from finetune.trained import load

        trained = load(checkpoint, say=lambda line: None)  # noqa: ARG005  # confidences are not shown
        block = spatial_block(trained)
        with progress_bar("where it looks") as show:
            drawn = []
            for made in overlays(trained, block, root, paths):
                drawn.append(made)
                show(len(drawn), len(paths))
        if not drawn:
            raise UserError(f"none of its {len(paths)} pictures is below {root}. Tell where they are: --data DIR")
        showcase.pack(run_dir / keys.ATTENTION, drawn)
    except UserError as error:
        return fail(error, EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    blocks = len(trained.model.blocks)
    print(f"{len(drawn)} of {len(paths)} pictures, at block {block + 1} of {blocks}: {run_dir / keys.ATTENTION}")
    return 0


def _shown(run_dir: Path) -> list[str]:
    """Return the paths, below the data folder, of the pictures that the run's grid shows."""
    paths = list(showcase.read_thumbnails(run_dir))
    if not paths:
        raise UserError(f"{run_dir}: has no {keys.THUMBNAILS}, which tells the pictures to draw; is the run finished?")
    return paths


def _data_root(run_dir: Path) -> Path:
    try:
        root = files.read_config(run_dir).get("provenance", {}).get("data_root")
    except FileNotFoundError:
        root = None
    if root is None:
        raise UserError(f"{run_dir}: does not tell where its pictures were. Tell it: --data DIR")
    return Path(root)


def spatial_block(trained: "Trained") -> int:
    """Return the number of the last block whose output (B, C, side, side) has places.

    Raises:
        UserError: no block's output has: it is a transformer, say, whose tokens Grad-CAM is not made for.
    """
    import torch

    if trained.config["backbone"].startswith(BY_TOKENS):
        raise UserError(_no_places(trained))
    found = None
    with torch.inference_mode():
        hidden = torch.zeros(1, 3, trained.to.crop_px, trained.to.crop_px, device=trained.device)
        for number, block in enumerate(trained.model.blocks):
            hidden = block(hidden)
            if hidden.ndim == 4 and hidden.shape[2] == hidden.shape[3] > 1:
                found = number
    if found is None:
        raise UserError(_no_places(trained))
    return found


def _no_places(trained: "Trained") -> str:
    return (
        f"{trained.config['backbone']}: no block's output is a map of places, which Grad-CAM needs; it works for "
        "convolutional networks, such as ResNet, EfficientNet, ConvNeXt, SqueezeNet"
    )


def overlays(trained: "Trained", block: int, root: Path, paths: Sequence[str]) -> Iterator[tuple[str, Array]]:
    """Yield path and overlay, uint8 (side, side, 3), of each picture that can be read, in order.

    Args:
        block: number of the one whose output is looked at.
        root: of the data, which the paths start from.
    """
    from itertools import islice

    import torch

    from finetune.answers import squares
    from finetune.data.transforms import stack

    inside = [path for path in paths if showcase.is_inside(path)]
    found = zip(inside, squares([root / path for path in inside], trained.to, 1), strict=True)
    read = ((path, square) for path, (_, square) in found if isinstance(square, torch.Tensor))
    while group := list(islice(read, BATCH_SIZE)):
        images = stack([square for _, square in group])
        for (path, square), heat in zip(group, heats(trained, block, images), strict=True):
            yield path, overlay(square.permute(1, 2, 0).numpy(), heat)


def heats(trained: "Trained", block: int, images: "Tensor") -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return how much each place speaks for the answer, (B, h, w) in [0, 1], each picture's strongest being 1.

    Args:
        images: (B, 3, side, side) uint8.
    """
    import torch
    from captum.attr import LayerGradCam

    from finetune.data.transforms import normalise

    inputs = normalise(images.to(trained.device), trained.to)
    with torch.no_grad():
        answers = trained.model(inputs).argmax(dim=1)
    layer: Classifier | Any = trained.model.blocks[block]
    maps = LayerGradCam(trained.model, layer).attribute(inputs, target=answers, relu_attributions=True)
    flat = maps.detach()[:, 0].float()
    most = flat.amax(dim=(1, 2), keepdim=True)
    result: np.ndarray[Any, np.dtype[np.float32]] = torch.where(most > 0, flat / most, 0.0).cpu().numpy()
    return result


def overlay(picture: Array, heat: np.ndarray[Any, np.dtype[np.float32]]) -> Array:
    """Return a picture (side, side, 3) in grey with `heat` (h, w) over it in colour, uint8, of a thumbnail's size."""
    size = (showcase.THUMBNAIL_PX, showcase.THUMBNAIL_PX)
    grey = np.asarray(Image.fromarray(picture).convert("L").resize(size), dtype=np.float32)[..., None]
    smooth = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    share = STRONGEST * np.clip(np.asarray(smooth), 0, 1)[..., None]
    mixed = (1 - share) * grey + share * np.array(COLOUR, dtype=np.float32)
    result: Array = mixed.round().astype(np.uint8)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

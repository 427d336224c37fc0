"""Draws what a network looked at: `python -m finetune.attention RUN|best [--data DIR]` writes `attention.zip`.

For each image of the prediction grid (see data/thumbnails.py): its center crop, which is all that the network sees, in
grey, with the regions that speak for the prediction in colour. The maps are Grad-CAM (Selvaraju et al., arXiv
1610.02391) at the last block whose output has spatial positions: coarse, and no explanation, but enough to notice a
network that looks at the background.
"""

import argparse
import sys
from pathlib import Path

from finetune.data import thumbnails
from finetune.errors import UserError
from finetune.inference.gradcam import overlays, spatial_block
from finetune.rundir import files, find, keys
from finetune.system.output import command
from finetune.system.progress_bar import progress_bar


@command
def main(arguments: list[str]) -> int:
    """Write the maps and return the exit code: 2 where the network has no spatial block, or the images are missing."""
    parser = argparse.ArgumentParser(
        "python -m finetune.attention", description="Draw what a network looked at, for the prediction grid."
    )
    parser.add_argument("run", metavar="RUN", help=find.HELP)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the images (default: the run's)")
    args = parser.parse_args(arguments)
    checkpoint = find.find_checkpoint(args.run)
    run_dir = checkpoint.parent
    paths = _grid_images(run_dir)
    root = args.data or _data_root(run_dir)

    from finetune.inference.predictor import load_trained

    trained = load_trained(checkpoint)
    block = spatial_block(trained)
    drawn = []
    with progress_bar("Grad-CAM") as advance:
        for overlay in overlays(trained, block, root, paths):
            drawn.append(overlay)
            advance(len(drawn), len(paths))
    if not drawn:
        raise UserError(f"none of the {len(paths)} images is below {root}. Name their folder: --data DIR")
    thumbnails.pack_thumbnails(run_dir / keys.ATTENTION, drawn)
    blocks = len(trained.model.blocks)
    print(f"{len(drawn)} of {len(paths)} images, at block {block + 1} of {blocks}: {run_dir / keys.ATTENTION}")
    return 0


def _grid_images(run_dir: Path) -> list[str]:
    """Return the paths, relative to the data folder, of the images in the run's prediction grid."""
    paths = list(thumbnails.read_thumbnails(run_dir))
    if not paths:
        raise UserError(f"{run_dir}: has no {keys.THUMBNAILS}, which lists the images to draw; is the run finished?")
    return paths


def _data_root(run_dir: Path) -> Path:
    try:
        root = files.read_config(run_dir).get("provenance", {}).get("data_root")
    except FileNotFoundError:
        root = None
    if root is None:
        raise UserError(f"{run_dir}: does not say where its images are. Name their folder: --data DIR")
    return Path(root)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where a trained network looked: `python -m finetune.attention RUN|best [--data DIR]` writes `attention.zip`.

The pictures are those of the prediction grid (see thumbnails.py): the middle of each, which is all that the network
sees, in grey, and the parts that speak for its answer in colour. The maps are Grad-CAM's (Selvaraju et al., arXiv
1610.02391), taken at the last block whose output still has places: coarse, and no explanation, but enough to see a
network that looks at the background.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data import thumbnails
from finetune.errors import EXIT_BAD_INPUT, UserError
from finetune.inference.gradcam import overlays, spatial_block
from finetune.rundir import files, find, keys
from finetune.system.output import command, fail
from finetune.system.progress_bar import progress_bar

if TYPE_CHECKING:
    pass


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

        from finetune.inference.predictor import load_trained

        trained = load_trained(checkpoint)
        block = spatial_block(trained)
        with progress_bar("where it looks") as show:
            drawn = []
            for made in overlays(trained, block, root, paths):
                drawn.append(made)
                show(len(drawn), len(paths))
        if not drawn:
            raise UserError(f"none of its {len(paths)} pictures is below {root}. Tell where they are: --data DIR")
        thumbnails.pack_thumbnails(run_dir / keys.ATTENTION, drawn)
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
    paths = list(thumbnails.read_thumbnails(run_dir))
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

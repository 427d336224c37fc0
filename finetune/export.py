"""Exports a trained network as ONNX: `python -m finetune.export RUN|best --onnx FILE`.

    input   images         (N, 3, side, side) float32 in [0, 1], RGB: the center crop of an image, see `preprocessing`
    output  probabilities  (N, classes) float32: calibrated, every row sums to 1

The network includes normalisation by mean and std, the temperature and the softmax; N is dynamic. The file's metadata
holds what a program needs to use it, each value as JSON: `classes`, `input`, `output`, `preprocessing`, `temperature`,
`calibrated`, `run_id`, `backbone`. Its outputs are compared with torch's before it gets its name.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from finetune.errors import UserError
from finetune.rundir import find
from finetune.system.output import command

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "python -m pip install '.[export]'"


@command
def main(arguments: list[str]) -> int:
    """Export a network, compare it with torch, and return the exit code: 1 if they differ, 2 on bad input."""
    parser = argparse.ArgumentParser("python -m finetune.export", description="Export a trained network as ONNX.")
    parser.add_argument("run", metavar="RUN", help=find.HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--uint8",
        action="store_true",
        help="the file takes bytes, 0 to 255, in place of floats in [0, 1]",
    )
    args = parser.parse_args(arguments)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}, not installed here: {INSTALL} (in this project's folder)")
    if not args.onnx.parent.is_dir():
        raise UserError(f"--onnx: the folder {args.onnx.parent} does not exist")
    if args.onnx.is_dir():
        raise UserError(f"--onnx: {args.onnx} is a folder; name a file")
    checkpoint = find.find_checkpoint(args.run)

    from finetune.inference.onnx_export import write_onnx
    from finetune.inference.predictor import load_trained

    for line in write_onnx(load_trained(checkpoint, device="cpu"), checkpoint.parent, args.onnx, args.uint8):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

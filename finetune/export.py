"""A trained network as an ONNX file: `python -m finetune.export RUN|best --onnx FILE`.

    input   images         (N, 3, side, side) float32 in [0, 1], RGB: the middle of a picture, see `preprocessing`
    output  probabilities  (N, classes) float32: calibrated, every row adds up to 1

Normalisation by mean and std, the temperature and the softmax are inside; N is free. What a program must know to use
the file lies in its metadata, each value as JSON: `classes`, `input`, `output`, `preprocessing`, `temperature`,
`calibrated`, `run_id`, `backbone`. The file is compared with torch before it takes its place.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from finetune.errors import EXIT_BAD_INPUT, EXIT_FAILED, ExportError, UserError
from finetune.rundir import find
from finetune.system.output import command, fail

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "python -m pip install '.[export]'"


@command
def main(arguments: list[str]) -> int:
    """Export, compare, say where; return the exit code: 1 when the two differ or it can't be done, 2 on bad input."""
    parser = argparse.ArgumentParser("python -m finetune.export", description="Write a trained network as ONNX.")
    parser.add_argument("run", metavar="RUN", help=find.HELP)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")
    given = parser.parse_args(arguments)
    try:
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise UserError(
                f"export needs {', '.join(missing)}, not installed here: {INSTALL} (in this project's folder)"
            )
        if not given.onnx.parent.is_dir():
            raise UserError(f"--onnx: the folder {given.onnx.parent} does not exist")
        if given.onnx.is_dir():
            raise UserError(f"--onnx: {given.onnx} is a folder; name a file")
        checkpoint = find.find_checkpoint(given.run)

        from finetune.inference.onnx_export import write_onnx
        from finetune.inference.predictor import load_trained

        for line in write_onnx(load_trained(checkpoint, device="cpu"), checkpoint.parent, given.onnx):
            print(line)
    except UserError as error:
        return fail(error, EXIT_BAD_INPUT)
    except ExportError as error:
        return fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

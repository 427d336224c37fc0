"""Writing a trained network as ONNX, and comparing the file with torch (see export.py for what it holds)."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from finetune.data.transforms import Preprocessing, stack
from finetune.errors import ExportError
from finetune.inference.predictor import TrainedModel, decode_ahead
from finetune.rundir import files, keys
from finetune.system.atomic import replacing
from finetune.system.tables import read_table

INPUT, OUTPUT = "images", "probabilities"
TOLERANCE = 1e-4  # of a probability; summing float32 in another order comes to a hundredth of it
SIZES = (1, 2, 5)  # of the batches that are compared
MAX_BYTES = 2**31  # of one file, which is a protocol buffer


class ExportModule(nn.Module):
    """What is exported: images (N, 3, side, side) float32 in [0, 1] -> calibrated probabilities (N, classes)."""

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model, self.temperature = trained.model, trained.temperature
        self.register_buffer("mean", torch.tensor(trained.to.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(trained.to.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images - self.mean) / self.std)
        return (logits / self.temperature).softmax(dim=1)


def write_onnx(trained: TrainedModel, run_dir: Path, path: Path) -> list[str]:
    """Write the file if it says what torch says, else nothing; return what there is to tell.

    Args:
        run_dir: tells which pictures to compare them on.

    Raises:
        ExportError: the two differ by more than TOLERANCE, or the network can't be exported.
    """
    size = sum(value.nbytes for value in trained.model.state_dict().values())
    if size >= MAX_BYTES:
        raise ExportError(f"its weights are {size / 1e9:.1f} GB, and one ONNX file holds at most 2.1")
    images, whence = _pictures(trained, run_dir)
    with replacing(path) as temporary:
        _export(ExportModule(trained).eval(), trained, temporary)
        apart = difference(trained, temporary, images)
        if not apart <= TOLERANCE:  # NaN is not
            raise ExportError(
                f"the exported network differs from torch's by up to {apart:.2g} of a probability ({whence}); "
                f"{TOLERANCE:g} are allowed, and nothing was written"
            )
        megabytes = temporary.stat().st_size / 1e6
    batches = ", ".join(map(str, SIZES))
    return [
        f"{path}: {megabytes:.1f} MB, {INPUT} (N, 3, {trained.to.crop_px}, {trained.to.crop_px}) float32 in [0, 1] -> "
        f"{OUTPUT} (N, {len(trained.classes)}) at temperature {trained.temperature:.3g}",
        f"differs from torch by up to {apart:.1e} of a probability ({whence}, in batches of {batches}; "
        f"allowed: {TOLERANCE:g})",
    ]


def _export(deployed: ExportModule, trained: TrainedModel, path: Path) -> None:
    side = trained.to.crop_px
    example = torch.rand(2, 3, side, side)  # two: of one picture, the exporter would take N to be 1 always
    try:
        with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
            program = torch.onnx.export(
                deployed,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch can't export {trained.config['backbone']} ({_first_line(error)})") from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in onnx_metadata(trained).items()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def onnx_metadata(trained: TrainedModel) -> Mapping[str, Any]:
    """Return what a program must know to use the file."""
    to, side = trained.to, trained.to.crop_px
    return {
        "classes": trained.classes,
        "input": {"name": INPUT, "shape": ["N", 3, side, side], "type": "float32", "range": [0, 1], "channels": "RGB"},
        "output": {"name": OUTPUT, "shape": ["N", len(trained.classes)], "type": "float32", "order": "as classes"},
        "preprocessing": {
            "outside": [
                "turn upright as EXIF says, as RGB",
                f"resize the short side to {to.resize_px}, {to.interpolation}, antialiased",
                f"cut out the middle {side} x {side}",
                "divide by 255",
            ],
            "resize_px": to.resize_px,
            "crop_px": side,
            "interpolation": to.interpolation,
            "inside": {"mean": list(to.mean), "std": list(to.std)},
        },
        "temperature": trained.temperature,
        "calibrated": trained.calibrated,
        "run_id": trained.run_id,
        "backbone": trained.config["backbone"],
    }


def difference(trained: TrainedModel, path: Path, images: Tensor) -> float:
    """Return the largest difference between a probability of torch and one of the file, in batches of SIZES.

    Args:
        images: (B, 3, side, side) uint8, at least as many as the largest batch has.
    """
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    apart = []
    for size in SIZES:
        for batch in torch.split(images[: len(images) // size * size], size):
            (ours,) = session.run([OUTPUT], {INPUT: (batch.float() / 255).contiguous().numpy()})
            apart.append((torch.from_numpy(ours) - trained.probabilities(batch)).abs().max())
    return float(torch.stack(apart).max())


def _pictures(trained: TrainedModel, run_dir: Path) -> tuple[Tensor, str]:
    """Return images (B, 3, side, side) uint8 to compare the two on, and what they are.

    Val pictures of the run where its data is here, else noise from coarse to fine.
    """
    wanted = 2 * max(SIZES)
    found = [square for _, square in islice(decode_ahead(_val_paths(run_dir), trained.to, 1), 3 * wanted)]
    read = [square for square in found if isinstance(square, Tensor)][:wanted]
    if len(read) == wanted:
        return stack(read), f"on {wanted} val pictures"
    return _noise(wanted, trained.to), f"on {wanted} pictures of noise, as no val pictures are here"


def _val_paths(run_dir: Path) -> Iterator[Path]:
    """Yield the paths of a few val pictures of a run, spread over val; none where they are not known."""
    try:
        root = files.read_config(run_dir).get("provenance", {}).get("data_root")
        paths = [row["path"] for row in read_table(run_dir / keys.SPLITS) if row["split"] == "val"]
    except (OSError, ValueError, KeyError):
        return
    if root is not None:
        yield from (Path(root) / path for path in paths[:: max(1, len(paths) // 30)])


def _noise(count: int, to: Preprocessing) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    grains = [max(1, to.crop_px >> (index % 6)) for index in range(count)]
    parts = [torch.rand(1, 3, grain, grain, generator=draw) for grain in grains]
    size = (to.crop_px, to.crop_px)
    return torch.cat([(nn.functional.interpolate(part, size) * 255).to(torch.uint8) for part in parts])


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep a library's loggers from telling of its own steps; errors are still told."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]

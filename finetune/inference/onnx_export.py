"""Writes a trained network as ONNX, and compares the file with torch (export.py describes its content)."""

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

from finetune.data.transforms import stack
from finetune.errors import ExportError
from finetune.inference import onnx_example
from finetune.inference.predictor import TrainedModel, decode_ahead
from finetune.pretrained import Preprocessing
from finetune.rundir import files, keys
from finetune.system.atomic import replacing, write_atomic
from finetune.system.tables import read_table

INPUT, OUTPUT = "images", "probabilities"
TOLERANCE = 1e-4  # of a probability; another order of float32 sums makes a hundredth of it
BATCH_SIZES = (1, 2, 5)  # to compare with
MAX_BYTES = 2**31  # of a protocol buffer, which the file is


class ExportModule(nn.Module):
    """The exported network: images (N, 3, side, side) -> calibrated probabilities (N, classes).

    The images are float32 in [0, 1], or uint8.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model, self.temperature = trained.model, trained.temperature
        self.register_buffer("mean", torch.tensor(trained.preprocessing.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(trained.preprocessing.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        logits: Tensor = self.model((images - self.mean) / self.std)
        return (logits / self.temperature).softmax(dim=1)


def write_onnx(trained: TrainedModel, run_dir: Path, path: Path, uint8: bool = False) -> list[str]:
    """Write the file if its outputs equal torch's, else nothing, and a program that uses it; return lines about them.

    Args:
        run_dir: names the images to compare on.
        uint8: whether the file takes images as bytes, and divides by 255 itself.

    Raises:
        ExportError: the outputs differ by more than TOLERANCE, or the network can't be exported.
    """
    size = sum(value.nbytes for value in trained.model.state_dict().values())
    if size >= MAX_BYTES:
        raise ExportError(f"its weights are {size / 1e9:.1f} GB, and one ONNX file holds at most 2.1")
    images, source = _comparison_images(trained, run_dir)
    with replacing(path) as temporary:
        _export(trained, temporary, uint8)
        error = max_difference(trained, temporary, images)
        if not error <= TOLERANCE:  # also for NaN
            raise ExportError(
                f"the exported network differs from torch's by up to {error:.2g} of a probability (on {source}); "
                f"at most {TOLERANCE:g} is allowed, so nothing was written"
            )
        megabytes = temporary.stat().st_size / 1e6
        program = path.with_name(f"{path.stem}_classify.py")
        write_atomic(program, Path(onnx_example.__file__).read_text(encoding="utf-8"))
    batches = ", ".join(map(str, BATCH_SIZES))
    side = trained.preprocessing.crop_px
    return [
        f"{path}: {megabytes:.1f} MB, {INPUT} (N, 3, {side}, {side}) {'uint8' if uint8 else 'float32 in [0, 1]'} -> "
        f"{OUTPUT} (N, {len(trained.classes)}) at temperature {trained.temperature:.3g}",
        f"differs from torch by up to {error:.1e} of a probability (on {source}, in batches of {batches}; "
        f"allowed: {TOLERANCE:g})",
        f"{program}: labels photos with it, without torch: python {program.name} {path.name} PHOTO...",
    ]


def _export(trained: TrainedModel, path: Path, uint8: bool) -> None:
    side = trained.preprocessing.crop_px
    example = torch.rand(2, 3, side, side)  # with one image, the exporter would fix N to 1
    if uint8:
        example = (255 * example).to(torch.uint8)
    try:
        with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
            program = torch.onnx.export(
                ExportModule(trained).eval(),
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
    metadata = onnx_metadata(trained, uint8)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def onnx_metadata(trained: TrainedModel, uint8: bool = False) -> Mapping[str, Any]:
    """Return the metadata that a program needs to use the file."""
    preprocessing, side = trained.preprocessing, trained.preprocessing.crop_px
    values = {"type": "uint8", "range": [0, 255]} if uint8 else {"type": "float32", "range": [0, 1]}
    return {
        "classes": trained.classes,
        "input": {"name": INPUT, "shape": ["N", 3, side, side], **values, "channels": "RGB"},
        "output": {"name": OUTPUT, "shape": ["N", len(trained.classes)], "type": "float32", "order": "as classes"},
        "preprocessing": {
            "outside": [
                "turn upright as EXIF says, as RGB",
                f"resize the short side to {preprocessing.resize_px}, {preprocessing.interpolation}, antialiased; the "
                "long side is rounded down",
                f"cut out the middle {side} x {side}",
                *([] if uint8 else ["divide by 255"]),
            ],
            "resize_px": preprocessing.resize_px,
            "crop_px": side,
            "interpolation": preprocessing.interpolation,
            "inside": {"mean": list(preprocessing.mean), "std": list(preprocessing.std)},
        },
        "temperature": trained.temperature,
        "calibrated": trained.calibrated,
        "run_id": trained.run_id,
        "backbone": trained.config["backbone"],
    }


def max_difference(trained: TrainedModel, path: Path, images: Tensor) -> float:
    """Return the largest difference between probabilities of torch and of the file, in batches of BATCH_SIZES.

    Args:
        images: (B, 3, side, side) uint8, at least one batch of the largest size.
    """
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    takes_bytes = session.get_inputs()[0].type == "tensor(uint8)"
    differences = []
    for size in BATCH_SIZES:
        for batch in torch.split(images[: len(images) // size * size], size):
            inputs = batch if takes_bytes else batch.float() / 255
            (exported,) = session.run([OUTPUT], {INPUT: inputs.contiguous().numpy()})
            differences.append((torch.from_numpy(exported) - trained.probabilities(batch)).abs().max())
    return float(torch.stack(differences).max())


def _comparison_images(trained: TrainedModel, run_dir: Path) -> tuple[Tensor, str]:
    """Return images (B, 3, side, side) uint8 to compare on, and a description.

    Val images of the run if its data is on this machine, else noise from coarse to fine.
    """
    count = 2 * max(BATCH_SIZES)
    decoded = islice(decode_ahead(_val_paths(run_dir), trained.preprocessing, 1), 3 * count)
    images = [image for _, image in decoded if isinstance(image, Tensor)][:count]
    if len(images) == count:
        return stack(images), f"{count} val images"
    return _noise(count, trained.preprocessing), f"{count} images of noise, as no val images are here"


def _val_paths(run_dir: Path) -> Iterator[Path]:
    """Yield the paths of some val images of a run, spread over val; none if they are unknown."""
    try:
        root = files.read_config(run_dir).get("provenance", {}).get("data_root")
        paths = [row["path"] for row in read_table(run_dir / keys.SPLITS) if row["split"] == "val"]
    except (OSError, ValueError, KeyError):
        return
    if root is not None:
        yield from (Path(root) / path for path in paths[:: max(1, len(paths) // 30)])


def _noise(count: int, preprocessing: Preprocessing) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    grains = [max(1, preprocessing.crop_px >> (index % 6)) for index in range(count)]
    images = [torch.rand(1, 3, grain, grain, generator=generator) for grain in grains]
    size = (preprocessing.crop_px, preprocessing.crop_px)
    return torch.cat([(nn.functional.interpolate(image, size) * 255).to(torch.uint8) for image in images])


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Let these loggers log errors only."""
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

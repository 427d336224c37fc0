"""Labels photos with an exported network, without torch: python NAME_classify.py NAME.onnx PHOTO...

Needs onnxruntime, numpy and pillow. Written beside each exported file; change it as you like.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MAX_ASPECT = 16  # a longer image is cut to its middle first, as in training


def main(model: str, photos: list[str]) -> int:
    """Print path, class and confidence of each photo; return 1 if one can't be read."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    failed = 0
    for photo in photos:
        try:
            pixels = load_pixels(photo, about["preprocessing"])
        except (OSError, ValueError) as error:
            print(f"{photo}: {error}", file=sys.stderr)
            failed = 1
            continue
        probabilities = classify(session, about, pixels[None])[0]
        best = int(probabilities.argmax())
        print(f"{photo}: {about['classes'][best]} {probabilities[best]:.4f}")
    return failed


def load_pixels(photo: str, settings: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return a photo as the network was trained on it, (3, side, side) uint8."""
    with Image.open(photo) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    longest = MAX_ASPECT * min(image.size)
    if max(image.size) > longest:
        image = _central_crop(image, min(image.width, longest), min(image.height, longest))
    # The short side becomes resize_px; the long side is rounded down.
    width, height = (settings["resize_px"] * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling[settings["interpolation"].upper()])
    image = _central_crop(image, settings["crop_px"], settings["crop_px"])
    return np.asarray(image).transpose(2, 0, 1)


def classify(session: Any, about: dict[str, Any], images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return probabilities (N, classes) for images (N, 3, side, side): uint8, or float32 in [0, 1].

    Raises:
        ValueError: the images have another shape, or values outside of [0, 1].
    """
    expected, side = about["input"], about["preprocessing"]["crop_px"]
    if images.ndim != 4 or images.shape[1:] != (3, side, side):
        raise ValueError(f"images have the shape {images.shape}, not (N, 3, {side}, {side})")
    if images.dtype != np.uint8:
        if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
            raise ValueError("images have values outside of [0, 1], or NaN: divide bytes by 255, and do not normalise")
        images = np.round(images * 255).astype(np.uint8) if expected["type"] == "uint8" else images
    elif expected["type"] != "uint8":
        images = images.astype(np.float32) / 255
    (probabilities,) = session.run([about["output"]["name"]], {expected["name"]: images})
    return np.asarray(probabilities)


def _central_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: python {Path(sys.argv[0]).name} MODEL.onnx PHOTO...")
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""Export: the ONNX file says what predict says, tells what its user must know, and is not written when it is wrong."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from finetune import export
from finetune.inference import onnx_export, predictor
from finetune.predict import main as predict
from finetune.run.run import run
from finetune.rundir import files, keys
from finetune.system import documents
from finetune.system.tables import write_table
from tests.support.failing_disk import EVERY, WritingCommand, assert_each_write_keeps
from tests.support.small_runs import small

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def place(trained_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures/, the directory run/ of a run with temperature 2, and its model.onnx."""
    place = tmp_path_factory.mktemp("place")
    (place / "pictures").symlink_to(trained_place / "pictures")
    shutil.copytree(trained_place / "run", place / "run")
    summary = documents.read_json(place / "run" / keys.SUMMARY) or {}
    documents.write_json(place / "run" / keys.SUMMARY, {**summary, "temperature": 2.0})
    assert export.main([str(place / "run"), "--onnx", str(place / "model.onnx")]) == 0
    return place


def test_the_file_says_what_predict_says(place: Path, tmp_path: Path) -> None:
    """Pictures prepared as the metadata tells, by other means: predict's rows, one at a time or 12 at once."""
    session = onnxruntime.InferenceSession(place / "model.onnx", providers=["CPUExecutionProvider"])
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert (
        predict([str(place / "run"), str(place / "pictures" / "test"), "--top", "3", "--csv", str(tmp_path / "o")]) == 0
    )
    with (tmp_path / "o").open() as file:
        rows = list(csv.DictReader(file))
    assert (told["preprocessing"]["interpolation"], told["calibrated"], told["temperature"]) == ("bilinear", True, 2.0)
    images = np.stack([prepared(Path(row["path"]), told["preprocessing"]) for row in rows])
    (all_at_once,) = session.run(["probabilities"], {"images": images})
    assert all_at_once.shape == (12, 3)
    assert np.ptp(all_at_once) > 0.3  # else little could differ
    assert all_at_once.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for image, row, probabilities in zip(images, rows, all_at_once, strict=True):
        (alone,) = session.run(["probabilities"], {"images": image[None]})
        assert alone[0] == pytest.approx(probabilities, abs=1e-5)
        said = {row[f"prediction{place}"]: float(row[f"confidence{place}"]) for place in ("", "_2", "_3")}
        # Pillow resizes here, torch there: they round differently.
        assert [said[name] for name in told["classes"]] == pytest.approx(probabilities, abs=0.01)
        assert row["prediction"] == told["classes"][probabilities.argmax()]


def prepared(path: Path, told: dict[str, int]) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Return an image (3, side, side) in [0, 1], made with nothing of this project."""
    picture = Image.open(path).convert("RGB")
    scale = told["resize_px"] / min(picture.size)
    size = tuple(int(side * scale) for side in picture.size)
    picture = picture.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = (round((side - told["crop_px"]) / 2) for side in picture.size)
    picture = picture.crop((left, top, left + told["crop_px"], top + told["crop_px"]))
    return np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255


def example_of(onnx_file: Path) -> ModuleType:
    """Return the program beside an exported file, loaded as a module of its own."""
    program = onnx_file.with_name(f"{onnx_file.stem}_classify.py")
    source = importlib.util.spec_from_file_location(onnx_file.stem, program)
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


def test_the_program_beside_the_file_says_what_predict_says(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for a photo that EXIF turns, and with bytes as input; a file that is no image is named."""
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").convert("RGB").resize((60, 40)).save(turned, exif=exif)
    photos = [str(turned), *map(str, sorted((place / "pictures" / "test").rglob("*.png"))[::4])]
    assert predict([str(place / "run"), *photos, "--csv", str(tmp_path / "o")]) == 0
    rows = list(csv.DictReader((tmp_path / "o").read_text().splitlines()))
    assert export.main([str(place / "run"), "--onnx", str(tmp_path / "bytes.onnx"), "--uint8"]) == 0
    (tmp_path / "none.jpg").write_text("no image")
    for file in (place / "model.onnx", tmp_path / "bytes.onnx"):
        capsys.readouterr()
        assert example_of(file).main(str(file), [*photos, str(tmp_path / "none.jpg")]) == 1
        said = capsys.readouterr()
        assert "none.jpg: cannot identify image file" in said.err
        answers = {line.partition(": ")[0]: line.partition(": ")[2].split() for line in said.out.splitlines()}
        for row in rows:
            name, confidence = answers[row["path"]]
            assert name == row["prediction"]
            assert float(confidence) == pytest.approx(float(row["confidence"]), abs=0.01)


def test_the_program_refuses_images_out_of_range(place: Path) -> None:
    """Bytes as floats, NaN, normalised ones, another shape: a wrong answer would look like a right one."""
    program, session = example_of(place / "model.onnx"), onnxruntime.InferenceSession(place / "model.onnx")
    about = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    side = about["preprocessing"]["crop_px"]
    right = np.full((1, 3, side, side), 0.5, np.float32)
    assert program.classify(session, about, right) == pytest.approx(
        program.classify(session, about, np.full(right.shape, 127, np.uint8)), abs=0.01
    )
    for wrong in (right * 255, right * np.nan, right - 1, right[0], right[..., 1:]):
        with pytest.raises(ValueError, match=r"outside of \[0, 1\]|have the shape"):
            program.classify(session, about, wrong)


def test_the_file_tells_what_its_user_must_know(place: Path) -> None:
    """Names, shapes and types by ONNX's own means; classes, preprocessing and origin as JSON."""
    session = onnxruntime.InferenceSession(place / "model.onnx", providers=["CPUExecutionProvider"])
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", ["N", 3, 24, 24])
    assert (returned.name, returned.type, returned.shape) == ("probabilities", "tensor(float)", ["N", 3])
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert told["classes"] == ["blue", "green", "red"]
    assert told["preprocessing"]["inside"]["mean"] == [0.485, 0.456, 0.406]
    assert told["run_id"] == files.read_config(place / "run")["provenance"]["run_id"]
    assert told["backbone"] == "resnet18"


def test_a_file_that_says_something_else_is_not_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of another temperature in place of what was exported: exit code 1, the old file as it was, no rest."""
    shutil.copytree(place / "run", tmp_path / "run")
    summary = documents.read_json(tmp_path / "run" / keys.SUMMARY) or {}
    documents.write_json(tmp_path / "run" / keys.SUMMARY, {**summary, "temperature": 0.2})
    monkeypatch.setattr(onnx_export, "_export", lambda *given: shutil.copy(place / "model.onnx", given[1]))
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("what was there before")
    assert export.main([str(tmp_path / "run"), "--onnx", str(out / "model.onnx")]) == 1
    assert "differs from torch's by up to" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    assert (out / "model.onnx").read_text() == "what was there before"


@EVERY
def test_a_full_disk_keeps_the_earlier_file(
    every: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With room, the same command writes it."""
    exported = (place / "model.onnx").read_bytes()
    trained = predictor.load_trained(place / "run" / keys.BEST, device="cpu")
    # Only writing is tested here; loading, exporting and comparing take seconds each time.
    monkeypatch.setattr(predictor, "load_trained", lambda *_, **__: trained)
    monkeypatch.setattr(onnx_export, "_export", lambda *given: given[1].write_bytes(exported))
    monkeypatch.setattr(onnx_export, "max_difference", lambda *_: 0.0)
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    out.write_text("what was there before")
    arguments = [str(place / "run"), "--onnx", str(out)]
    message = f"WriteError: {out.with_suffix('')}"  # of the file, or of the program beside it
    command = WritingCommand(lambda: export.main(arguments), out.parent, out, message)
    assert_each_write_keeps(command, capsys, every)
    assert out.read_bytes() == exported


def test_it_is_compared_on_val_pictures_or_without_them_on_noise(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which of them, and by how much they differ, is said."""
    monkeypatch.setattr(onnx_export, "_export", lambda *given: shutil.copy(place / "model.onnx", given[1]))
    out = str(tmp_path / "model.onnx")
    shutil.copytree(place / "run", tmp_path / "run")
    assert export.main([str(tmp_path / "run"), "--onnx", out]) == 0
    assert "of noise, as no val images are here" in capsys.readouterr().out  # val has 6, which are too few
    rows = [[f"{name}/{n:03}.png", name, "val"] for name in ("train/red", "train/blue") for n in range(10)]
    write_table(tmp_path / "run" / keys.SPLITS, ["path", "label", "split"], rows)
    assert export.main([str(tmp_path / "run"), "--onnx", out]) == 0
    said = capsys.readouterr().out
    assert "on 10 val images" in said
    assert float(said.split("differs from torch by up to ")[1].split()[0]) < 1e-5


def test_bad_input_is_told(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run, no folder to write to, no package: exit code 2, and how to mend it."""
    (tmp_path / "empty").mkdir()
    for given in ([str(tmp_path / "empty"), "--onnx", "a.onnx"], [str(place / "run"), "--onnx", "no/where.onnx"]):
        assert export.main(given) == 2
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert export.main([str(place / "run"), "--onnx", str(tmp_path / "a.onnx")]) == 2
    said = capsys.readouterr().err
    assert "export needs onnxscript, not installed here: python -m pip install '.[export]'" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["squeezenet1_1", "efficientnet_b0", "mobilenet_v3_small", "vit_b_16", "convnext_tiny"]
)
def test_other_families_are_exported_too(
    place: Path, tmp_path: Path, backbone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Convolutions with and without squeezing, and a transformer with its class token."""
    config = small(place / "pictures", strategy="scratch", backbone=backbone, epochs=1, image_px=32, batch_size=16)
    run(config, tmp_path / "run")
    assert export.main([str(tmp_path / "run"), "--onnx", str(tmp_path / "model.onnx")]) == 0
    assert "differs from torch by up to" in capsys.readouterr().out

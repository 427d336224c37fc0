"""Where a network looked: maps that follow what it answers by, in a file that the analysis draws without torch."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from finetune.attention import main
from finetune.data import thumbnails
from finetune.errors import UserError
from finetune.inference import predictor
from finetune.inference.gradcam import heat_maps, overlay, spatial_block
from finetune.inference.predictor import TrainedModel
from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.pretrained import Preprocessing
from finetune.rundir import keys
from tests import ROOT
from tests.support import offline
from tests.support.fabricate import fabricate_run
from tests.support.failing_disk import EVERY, WritingCommand, assert_each_write_keeps


@pytest.fixture(scope="module")
def place(trained_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures/ and a sweep runs/tiny of one run, `only`."""
    place = tmp_path_factory.mktemp("place")
    (place / "pictures").symlink_to(trained_place / "pictures")
    shutil.copytree(trained_place / "run", place / "runs" / "tiny" / "only")
    return place


def wrapped(model: Classifier, px: int, backbone: str) -> TrainedModel:
    preprocessing = Preprocessing(px, px, (0.0,) * 3, (1.0,) * 3, "bilinear")
    return TrainedModel(
        model.eval(), preprocessing, ["a", "b"], 1.0, True, "a-run", {"backbone": backbone}, torch.device("cpu")
    )


def test_the_map_is_where_the_answer_comes_from() -> None:
    """A network that counts red for one class and green for the other looks at the red corner, or the green one."""
    conv = nn.Conv2d(3, 2, 4, stride=4, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[0, 0] = conv.weight.data[1, 1] = 1.0
    model = Classifier([conv], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2, 2, 0.0)
    model.head[1].weight.data = torch.eye(2)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images[0, 0, :4, :4] = 255
    images[1, 1, 12:, 4:8] = 255
    found = heat_maps(wrapped(model, 16, "by hand"), 0, images)
    expected = np.zeros((2, 4, 4), dtype=np.float32)
    expected[0, 0, 0] = expected[1, 3, 1] = 1
    assert found == pytest.approx(expected, abs=1e-6)
    black = heat_maps(wrapped(model, 16, "by hand"), 0, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    assert not black.any()  # nothing speaks for the answer: no map, and no NaN


def test_the_overlay_is_grey_where_nothing_speaks_for_the_answer() -> None:
    """And coloured where something does; of a thumbnail's size whatever the network's."""
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[:, 3] = 1
    drawn = overlay(np.full((32, 32, 3), (90, 100, 110), dtype=np.uint8), heat)
    assert drawn.shape == (160, 160, 3)
    assert np.ptp(drawn[:, 5].astype(int), axis=-1).max() <= 1
    assert np.ptp(drawn[:, 155].astype(int), axis=-1).min() > 100


@pytest.mark.parametrize(
    ("backbone", "px", "last"),
    [("resnet18", 64, -1), ("squeezenet1_1", 64, -1), ("efficientnet_b0", 64, -1), ("mobilenet_v3_small", 64, -2)],
)
def test_the_last_block_with_places_is_taken(backbone: str, px: int, last: int) -> None:
    """Where a family's last block has none (a linear layer), the one before; its maps are as they should be."""
    trained = wrapped(build_classifier(build_network(backbone, px), 2, 0.0), px, backbone)
    nn.init.normal_(trained.model.head[1].weight)
    block = spatial_block(trained)
    assert block == len(trained.model.blocks) + last
    found = heat_maps(trained, block, torch.randint(0, 256, (2, 3, px, px), dtype=torch.uint8))
    assert found.shape[0] == 2
    assert found.shape[1] == found.shape[2] > 1
    assert 0 <= found.min() <= found.max() <= 1


def test_the_pictures_are_those_of_the_grid(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each under its name, and the same file when asked again; images elsewhere are found by --data."""
    run_dir = Path(shutil.copytree(place / "runs/tiny/only", tmp_path / "run"))
    assert main([str(run_dir)]) == 0
    assert "12 of 12 images" in capsys.readouterr().out
    drawn = thumbnails.read_thumbnails(run_dir, keys.ATTENTION)
    assert list(drawn) == list(thumbnails.read_thumbnails(run_dir))
    assert {picture.shape for picture in drawn.values()} == {(160, 160, 3)}
    before = (run_dir / keys.ATTENTION).read_bytes()
    assert main([str(run_dir), "--data", str(place / "pictures")]) == 0
    assert (run_dir / keys.ATTENTION).read_bytes() == before


def test_what_can_not_be_drawn_is_told(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No images here, none that the run showed, a transformer: exit code 2, a way out, nothing written."""
    run_dir = Path(shutil.copytree(place / "runs/tiny/only", tmp_path / "run"))
    assert main([str(run_dir), "--data", str(tmp_path / "nowhere")]) == 2
    assert "none of the 12 images is below" in capsys.readouterr().err
    (run_dir / keys.THUMBNAILS).unlink()
    assert main([str(run_dir)]) == 2
    assert "thumbnails.zip" in capsys.readouterr().err
    assert not (run_dir / keys.ATTENTION).exists()


def test_maps_are_weighted_by_the_gradients() -> None:
    """With mean pooling and a linear head, the weights of the maps are those of the predicted class."""
    torch.manual_seed(0)
    model = Classifier([nn.Conv2d(3, 4, 1)], nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4, 2, 0.0)
    nn.init.normal_(model.head[1].weight)
    trained = wrapped(model, 6, "x")
    images = torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8)
    found = torch.from_numpy(heat_maps(trained, 0, images))
    maps = model.blocks[0](images.float() / 255)
    weights = model.head[1].weight[model(images.float() / 255).argmax(dim=1)]
    expected = (weights[:, :, None, None] * maps).sum(dim=1).relu().detach()
    assert (expected.amax(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(found, expected / expected.amax(dim=(1, 2), keepdim=True))


@pytest.mark.parametrize(
    ("backbone", "px", "places"), [("vit_b_32", 64, 2), ("swin_t", 64, 2), ("timm/test_vit", 64, 4)]
)
def test_maps_of_transformers_are_those_of_their_patches(backbone: str, px: int, places: int) -> None:
    """The class token has no place; where it alone is classified, the block before the last is taken."""
    trained = wrapped(build_classifier(build_network(backbone, px), 2, 0.0), px, backbone)
    nn.init.normal_(trained.model.head[1].weight)
    block = spatial_block(trained)
    assert block == len(trained.model.blocks) - (1 if backbone == "swin_t" else 2)
    found = heat_maps(trained, block, torch.randint(0, 256, (2, 3, px, px), dtype=torch.uint8))
    assert found.shape == (2, places, places)


def test_a_network_without_places_is_refused() -> None:
    """As one whose blocks return features."""
    trained = wrapped(Classifier([nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4))], nn.Identity(), 4, 2, 0.0), 8, "x")
    with pytest.raises(UserError, match="x: no block's output has spatial positions"):
        spatial_block(trained)


def test_the_analysis_is_told_why_there_are_no_maps(tmp_path: Path) -> None:
    """In a sentence, whatever ended the process."""
    from analysis.report.gradcam import draw_gradcam

    fabricate_run(tmp_path, "some")
    assert (draw_gradcam(tmp_path / "some") or "").startswith("No new attention maps of some: UserError: ")


@pytest.mark.slow
def test_the_analysis_has_it_drawn_and_shows_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With --attention the grid is there and in the report; where it can't be drawn, the report says why."""
    from analysis.__main__ import main as analyse

    shutil.copytree(place / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", offline.environment(ROOT)["PYTHONPATH"])
    assert analyse(["tiny", "--attention"]) == 0
    assert (tmp_path / "reports/tiny/prediction_grid_attention.png").is_file()
    assert "Attention of only" in (tmp_path / "reports/tiny/report.html").read_text(encoding="utf-8")
    (tmp_path / "runs/tiny/only" / keys.ATTENTION).unlink()
    (tmp_path / "runs/tiny/only" / keys.BEST).unlink()
    assert analyse(["tiny", "--attention"]) == 0
    assert "No new attention maps of only: UserError" in capfd.readouterr().out
    assert not (tmp_path / "reports/tiny/prediction_grid_attention.png").exists()


@EVERY
def test_a_full_disk_keeps_earlier_maps(
    every: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With room, the same command writes them."""
    shutil.copytree(place / "runs/tiny/only", tmp_path / "run")
    trained = predictor.load_trained(tmp_path / "run" / keys.BEST)
    monkeypatch.setattr(predictor, "load_trained", lambda _: trained)  # once for all writes that fail
    maps = tmp_path / "run" / keys.ATTENTION
    maps.write_text("earlier")
    assert_each_write_keeps(WritingCommand(lambda: main([str(maps.parent)]), maps.parent, maps), capsys, every)
    assert thumbnails.read_thumbnails(maps.parent, keys.ATTENTION)

"""Weights: loaded whole, refused when they are another network's, and never executed."""

import hashlib
import pickle
import random
from pathlib import Path

import pytest
import torch
import torchvision

from finetune.errors import WeightsError
from finetune.models import weights
from finetune.models.classifier import build_network
from tests.support.faults import flip
from tests.support.file_server import Served, serving
from tests.support.logs import each_log_line


def save(path: Path, backbone: str, classes: int = 1000) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = torchvision.models.get_model(backbone, weights=None, num_classes=classes).state_dict()
    torch.save(state, path)
    return state


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_state_dict_is_loaded_whatever_its_number_of_classes(tmp_path: Path, classes: int) -> None:
    """Every tensor but the last layer's arrives."""
    path = tmp_path / "w.pth"
    state = save(path, "resnet18", classes)
    network = build_network("resnet18", 64)
    weights.load_weights(network, "resnet18", str(path), 64)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if not name.startswith("fc."))
    assert weights.weights_hash("resnet18", str(path)) == weights.weights_hash("resnet18", str(path))


def test_a_vision_transformer_takes_its_weights_at_another_size(tmp_path: Path) -> None:
    """The position embedding is interpolated: 14 x 14 patches become 4 x 4."""
    path = tmp_path / "w.pth"
    with torch.device("meta"):
        shapes = torchvision.models.get_model("vit_b_16", weights=None).state_dict()
    # Expanded rows: of the right shapes, and a small file.
    state = {name: torch.randn(shape.shape[-1:]).expand(shape.shape) for name, shape in shapes.items()}
    torch.save(state, path)
    assert weights.weights_hash("vit_b_16", str(path))
    network = build_network("vit_b_16", 64)
    weights.load_weights(network, "vit_b_16", str(path), 64)
    assert torch.equal(network.state_dict()["conv_proj.weight"], state["conv_proj.weight"])
    assert network.state_dict()["encoder.pos_embedding"].abs().sum() > 0


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """With the counts of what does not fit."""
    save(tmp_path / "w.pth", "resnet34")
    with pytest.raises(WeightsError, match=r"not a state dict of resnet18: .* unknown"):
        weights.weights_hash("resnet18", str(tmp_path / "w.pth"))


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("kind", ["text", "pickle", "list", "empty"])
def test_files_that_are_no_weights_are_refused_and_not_executed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text, a pickle that would run code, a list, an empty file."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    if kind == "text":
        path.write_text("weights")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": _Evil()}))
    elif kind == "list":
        torch.save([torch.zeros(1)], path)
    else:
        path.touch()
    with pytest.raises(WeightsError, match=r"w\.pth"):
        weights.weights_hash("resnet18", str(path))
    assert not (tmp_path / "executed").exists()


def test_a_damaged_published_file_is_renamed_and_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit in a tensor, which torch.load() would take; its SHA-256 is in the file's name."""
    state = save(tmp_path / "w.pth", "squeezenet1_1")
    content = (tmp_path / "w.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    monkeypatch.setattr(weights, "_digest", lambda _: digest)
    place = tmp_path / "torch" / "hub" / "checkpoints" / weights.weights_hash("squeezenet1_1", "DEFAULT")
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    flip(place, random.Random(0))
    with serving(Served(content)) as served:
        monkeypatch.setenv("FINETUNE_WEIGHTS_URL", served.url.rpartition("/")[0])
        network = build_network("squeezenet1_1", 64)
        lines: list[str] = []
        with each_log_line(lines.append):
            weights.load_weights(network, "squeezenet1_1", "DEFAULT", 64)
        assert len(served.asked) == 1
        weights.load_weights(network, "squeezenet1_1", "DEFAULT", 64)
        assert len(served.asked) == 1
    assert torch.equal(network.features[0].weight, state["features.0.weight"])
    assert f"{place} is damaged: renamed to {place.name}.damaged-1; fetched again" in lines


def test_unknown_names_are_told_with_the_known_ones() -> None:
    """A misspelt name of published weights."""
    with pytest.raises(WeightsError, match="IMAGENET1K_V1"):
        weights.weights_hash("resnet18", "IMAGENET1K_V7")


def test_published_weights_are_named_without_a_download() -> None:
    """DEFAULT and the name it stands for are the same weights."""
    assert weights.weights_hash("resnet50", "DEFAULT") == weights.weights_hash("resnet50", "IMAGENET1K_V2")
    assert weights.weights_hash("resnet50", "none") == "none"


def test_every_damaged_byte_at_the_end_of_a_file_is_told_or_harmless(tmp_path: Path) -> None:
    """The directory of the archive and the records after it, among them one of large archives that is read early."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(3.0)}, path)
    whole = path.read_bytes()
    told = 0
    for place in range(len(whole) - 500, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert torch.equal(read_weights(path).state["a"], torch.arange(3.0))
        except WeightsError:
            told += 1
    assert told > 100
    at = whole.rindex(b"PK\6\7") + 16  # how many disks the archive is on
    path.write_bytes(whole[:at] + b"\2" + whole[at + 1 :])
    with pytest.raises(WeightsError, match="is damaged"):
        read_weights(path)

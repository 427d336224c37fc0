"""Weights: loaded whole, refused when they are another network's, and never executed."""

import argparse
import hashlib
import pickle
import random
from pathlib import Path

import pytest
import torch
import torchvision

from finetune.errors import WeightsError
from finetune.models import weights
from finetune.models.classifier import build_classifier, build_network
from finetune.models.weights_file import read_weights
from finetune.pretrained import preprocessing_of
from finetune.run.checkpoint import checkpoint_metadata, save_checkpoint
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
    monkeypatch.setattr(weights, "_digest_in_name", lambda _: digest)
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


def wrappings(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """The ways in which training scripts store a network's weights."""
    return {
        "state_dict": {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        "torchvision": {"model": state, "args": argparse.Namespace(lr=0.1), "model_ema": {"n_averaged": torch.ones(1)}},
        "model_state_dict": {"model_state_dict": state, "loss": 0.5},
        "ema only": {"state_dict_ema": state, "arch": "resnet18"},
        "unnamed entry": {"student_net": state, "step": 7},
        "compiled": {f"_orig_mod.{name}": value for name, value in state.items()},
        "parallel": {f"module.{name}": value for name, value in state.items()},
        "parallel and compiled": {f"module._orig_mod.{name}": value for name, value in state.items()},
        "lightning": {
            "state_dict": {**{f"model.{name}": value for name, value in state.items()}, "loss.weight": torch.ones(2)},
            "hyper_parameters": {"lr": 0.1},
        },
        "nested": {"checkpoint": {"model": state}},
        "numbers among tensors": {**state, "step": 3},
    }


@pytest.mark.parametrize("wrapping", wrappings({}))
def test_weights_are_found_in_files_of_other_scripts(tmp_path: Path, wrapping: str) -> None:
    """What was taken is logged; the network is the same as from a plain state dict."""
    path = tmp_path / "w.pth"
    state = save(path, "squeezenet1_1", 7)
    torch.save(wrappings(state)[wrapping], path)
    lines: list[str] = []
    network = build_network("squeezenet1_1", 64)
    with each_log_line(lines.append):
        weights.weights_hash("squeezenet1_1", str(path))
        weights.load_weights(network, "squeezenet1_1", str(path), 64)
    assert torch.equal(network.state_dict()["features.0.weight"], state["features.0.weight"])
    assert wrapping == "numbers among tensors" or any(f"weights: {path}: took the " in line for line in lines)


def test_a_file_without_weights_is_told_by_its_entries(tmp_path: Path) -> None:
    torch.save({"optimizer": {"lr": 0.1}, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds no state dict .*: its entries are 'optimizer', 'epoch'"):
        weights.weights_hash("resnet18", str(tmp_path / "w.pth"))


def test_safetensors_are_read_and_damaged_ones_told(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    state, path = save(tmp_path / "w.pth", "squeezenet1_1"), tmp_path / "w.safetensors"
    save_file(state, path)
    network = build_network("squeezenet1_1", 64)
    weights.load_weights(network, "squeezenet1_1", str(path), 64)
    assert torch.equal(network.state_dict()["features.0.weight"], state["features.0.weight"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"w\.safetensors is damaged"):
        weights.weights_hash("squeezenet1_1", str(path))


def test_a_run_may_start_from_the_checkpoint_of_an_earlier_one(tmp_path: Path) -> None:
    """Its backbone is taken, not its head, whatever its classes; one of another backbone is refused by name."""
    earlier = build_classifier(build_network("squeezenet1_1", 32), 5, 0.0)
    preprocessing = preprocessing_of("squeezenet1_1", "none", 32)
    metadata = checkpoint_metadata("full-1", {"backbone": "squeezenet1_1"}, ("a", "b"), preprocessing)
    save_checkpoint(tmp_path / "best.pt", earlier, None, [], metadata)
    path = str(tmp_path / "best.pt")
    assert weights.weights_hash("squeezenet1_1", path) != "none"
    network = build_network("squeezenet1_1", 32)
    weights.load_weights(network, "squeezenet1_1", path, 32)
    images = torch.randn(2, 3, 32, 32)
    later = build_classifier(network, 2, 0.0).eval()
    with torch.no_grad():
        assert torch.equal(later.prefix(images, len(later.blocks)), earlier.eval().prefix(images, len(later.blocks)))
    with pytest.raises(WeightsError, match="checkpoint of a run with squeezenet1_1, not resnet18"):
        weights.weights_hash("resnet18", path)

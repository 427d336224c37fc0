"""Backbones of timm: their names, weights and preprocessing; loaded strictly, fetched once, refused by name."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from finetune import pretrained
from finetune.config import parse_config
from finetune.errors import ConfigError, DownloadError, UserError, WeightsError
from finetune.models import weights
from finetune.models.classifier import build_network
from finetune.pretrained import Preprocessing, preprocessing_of, published_weights
from finetune.resolve import resolve, run_id
from finetune.run import preflight
from tests.support.faults import flip
from tests.support.file_server import Served, serving

timm = pytest.importorskip("timm")
save_file = pytest.importorskip("safetensors.torch").save_file
NETWORK = "timm/test_vit"


def save(path: Path, architecture: str = "test_vit", classes: int = 1000) -> dict[str, torch.Tensor]:
    """Write random weights as timm publishes them, classifier included."""
    torch.manual_seed(1)
    network = timm.create_model(architecture, num_classes=classes)
    state: dict[str, torch.Tensor] = {name: value.clone() for name, value in network.state_dict().items()}
    save_file(state, path)
    return state


def test_preprocessing_is_that_of_the_weights() -> None:
    """EfficientNet-Lite0 wants other means than ImageNet's; at another size, the resize keeps its ratio to the crop."""
    half = (0.5, 0.5, 0.5)
    assert preprocessing_of("timm/tf_efficientnet_lite0", "DEFAULT", None) == Preprocessing(
        256, 224, half, half, "bicubic"
    )
    assert preprocessing_of("timm/tf_efficientnet_lite0", "w.pth", 160).resize_px == 183
    assert preprocessing_of("timm/resnet50", "a1_in1k", None) != preprocessing_of("timm/resnet50", "tv_in1k", None)


def test_the_code_of_timm_is_part_of_what_activations_are_kept_by() -> None:
    """Its next version may compute something else; torchvision's networks keep the names of their caches."""
    assert pretrained.code_of(NETWORK) == f"{NETWORK} of timm {timm.__version__}"
    assert pretrained.code_of("resnet18") == "resnet18"


def test_a_tag_in_the_name_is_the_name_of_the_weights() -> None:
    """As on the pages of the hub; it makes the same run as the two fields do."""
    tagged = resolve(parse_config({"backbone": "timm/resnet50.tv_in1k"}, "a test"))
    assert (tagged.backbone, tagged.weights) == ("timm/resnet50", "tv_in1k")
    apart = parse_config({"backbone": "timm/resnet50", "weights": "tv_in1k"}, "a test")
    assert run_id(tagged, "data", "w") == run_id(apart, "data", "w")
    with pytest.raises(ConfigError, match="leave one of the two out"):
        parse_config({"backbone": "timm/resnet50.tv_in1k", "weights": "a1_in1k"}, "a test")


def test_unknown_architectures_and_tags_are_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"no architecture 'resnet5'\. Did you mean 'resnet"):
        published_weights("timm/resnet5")
    with pytest.raises(WeightsError, match="Did you mean 'tv_in1k'"):
        weights.weights_hash("timm/resnet50", "tv_in2k")
    with pytest.raises(ConfigError, match="backbone: 'timm/Res Net' is unknown"):
        parse_config({"backbone": "timm/Res Net"}, "a test")


def test_without_timm_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all other backbones work."""
    monkeypatch.setitem(sys.modules, "timm", None)
    for function in (pretrained.timm, pretrained._of_timm):
        function.cache_clear()
    with pytest.raises(WeightsError, match="make setup"):
        published_weights(NETWORK)
    assert published_weights("resnet18")
    pretrained.timm.cache_clear()


@pytest.mark.parametrize("classes", [1000, 7])
def test_weights_are_loaded_at_another_image_size_whatever_their_classes(tmp_path: Path, classes: int) -> None:
    """The position embedding of 10 x 10 patches becomes one of 4 x 4; the other tensors arrive as they are."""
    path = tmp_path / "w.safetensors"
    state = save(path, classes=classes)
    assert weights.weights_hash(NETWORK, str(path), image_px=64)
    network = build_network(NETWORK, 64)
    weights.load_weights(network, NETWORK, str(path), 64)
    loaded = network.state_dict()
    assert not any(name.startswith("head.") for name in loaded)
    assert loaded["pos_embed"].shape[1] == 4 * 4 + 1
    assert all(torch.equal(value, state[name]) for name, value in loaded.items() if name != "pos_embed")


@pytest.mark.parametrize("other", ["test_resnet", "test_vit2"])
def test_weights_of_another_architecture_are_refused(tmp_path: Path, other: str) -> None:
    """timm itself would take them with a line in its log."""
    save(tmp_path / "w.safetensors", other)
    with pytest.raises(WeightsError, match=r"not a state dict of timm/test_vit: \d+ "):
        weights.weights_hash(NETWORK, str(tmp_path / "w.safetensors"), image_px=160)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that has the published file; the caches are empty."""
    save(tmp_path / "model.safetensors")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("FINETUNE_WEIGHTS_URL")
    with serving(Served((tmp_path / "model.safetensors").read_bytes())) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url.rpartition("/")[0])
        yield served


def test_published_weights_are_fetched_once_and_damage_is_noticed(hub: Served) -> None:
    """From the hub's address of the file; its SHA-256 is noted, as the hub publishes none in the name."""
    missing = weights.required_weights(NETWORK, "DEFAULT")
    assert missing is not None
    assert missing.url.endswith("/timm/test_vit.r160_in1k/resolve/main/model.safetensors")
    network = build_network(NETWORK, 160)
    for _ in range(2):
        weights.load_weights(network, NETWORK, "DEFAULT", 160)
    assert len(hub.asked) == 1
    assert weights.required_weights(NETWORK, "r160_in1k") is None
    flip(missing.path, random.Random(0))
    weights.load_weights(network, NETWORK, "DEFAULT", 160)
    assert len(hub.asked) == 2


def test_offline_mode_of_the_hub_is_respected(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        weights.download_weights(NETWORK, "DEFAULT")
    assert hub.asked == []


def test_a_file_in_the_cache_of_the_hub_is_used(hub: Served, tmp_path: Path) -> None:
    place = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "model.safetensors").rename(place / "snapshots" / "abc" / "model.safetensors")
    assert weights.required_weights(NETWORK, "DEFAULT") is None
    weights.load_weights(build_network(NETWORK, 160), NETWORK, "DEFAULT", 160)
    assert hub.asked == []


def test_a_backbone_of_few_blocks_can_not_be_trained_in_parts(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "count_blocks", lambda *_: 1)
    values = {"data": str(pictures), "backbone": NETWORK, "weights": "none", "image_px": 64}
    with pytest.raises(UserError, match=r"partial trains a part of the blocks, but timm/test_vit .* 1 block:"):
        preflight.fingerprint_inputs(resolve(parse_config({**values, "strategy": "partial"}, "a test")))
    assert preflight.fingerprint_inputs(resolve(parse_config({**values, "strategy": "full"}, "a test")))

"""A network of any architecture as ordered blocks: fewer where its code does not allow a cut, never wrong ones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from finetune.models.graph_blocks import Blocks, check_other_size, cut_into_blocks


class Layer(nn.Module):
    """Linear over the channels (B, 4, H, W), as a module of its own."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.linear(hidden.transpose(1, -1)).transpose(1, -1)
        return functional.gelu(out)


class Network(nn.Module):
    """A stem, four layers and a mean; its sub-classes differ in the code between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, 2)
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("table", torch.linspace(0, 1, 4).view(1, 4, 1, 1))

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.stem(images)
        for index, layer in enumerate(self.layers):
            hidden = self.between(layer(hidden), index, images)
        return hidden.mean((2, 3))


class Recomputed(Network):
    """Code with sizes, branches on them, a buffer and a tensor made from nothing: none of it stops a cut."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:
        batch, channels, height, width = hidden.shape
        assert height == width, "square"
        ramp = torch.arange(height, device=hidden.device, dtype=hidden.dtype) if index % 2 else self.table.mean()
        rows = hidden.reshape(batch * channels, height * width).reshape(batch, channels, height, width)
        return rows + ramp + hidden.new_zeros(images.shape[0], channels, 1, 1) + self.table


class Bypass(Network):
    """The third layer reads what the first has made."""

    def forward(self, images: Tensor) -> Tensor:
        first = self.layers[0](self.stem(images))
        hidden: Tensor = self.layers[2](self.layers[1](first)) + first
        out: Tensor = self.layers[3](hidden)
        return out.mean((2, 3))


class ReadsImages(Network):
    """The last layer reads the images."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:
        return hidden + images.mean() if index == 3 else hidden


class SharedLayer(Network):
    """The last layer is the first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[3] = self.layers[0]


class SharedParameter(Network):
    """The code after the first and the third layer uses one parameter."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return hidden * self.scale if index in (0, 2) else hidden


class TrainNoise(Network):
    """The code between layers differs in train mode."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return hidden + torch.rand_like(hidden) if self.training and index == 1 else hidden


class DropsOut(Network):
    """The code between layers calls dropout, which knows of train mode."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return functional.dropout(hidden, 0.5, self.training) if index == 1 else hidden


class Loops(Network):
    """The code loops over the images of a batch."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return torch.stack([image * 2 for image in hidden]) if index == 1 else hidden


class CountsImages(Network):
    """The code computes with a batch size that is a plain int."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:
        return hidden * len(images) if index == 1 else hidden


class MixesImages(Network):
    """After the first layer, images are rolled within the batch; rows are images still."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return hidden.roll(1, 0) if index == 0 else hidden


class Windows(Network):
    """In the second and the third layer, a row is half an image."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        batch, channels, height, width = hidden.shape
        if index == 0:
            return hidden.reshape(batch * 2, channels, height // 2, width)
        return hidden.reshape(batch // 2, channels, height * 2, width) if index == 2 else hidden


class Keeps(Network):
    """In eval mode, the code keeps what it has computed from a parameter."""

    kept: Tensor | None = None

    def train(self, mode: bool = True) -> Any:
        if mode:
            self.kept = None
        return super().train(mode)

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        if index != 2:
            return hidden
        scale = self.scale * 2 if self.kept is None else self.kept
        if not self.training:
            self.kept = scale
        return hidden * scale


class Hidden(Network):
    """A closed part calls itself on random draws; in train mode it has another meaning."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[1] = nn.Sequential(Layer(), nn.Dropout(0.5), Layer())


def cut(kind: type[Network]) -> tuple[Network, Blocks]:
    torch.manual_seed(0)
    network = kind()
    return network, cut_into_blocks(network, 8)


KINDS = [
    *((Network, 5), (Recomputed, 5), (Bypass, 4), (ReadsImages, 1), (SharedLayer, 2), (SharedParameter, 4)),
    *(
        (TrainNoise, 1),
        (DropsOut, 1),
        (Loops, 1),
        (CountsImages, 1),
        (MixesImages, 5),
        (Windows, 4),
        (Keeps, 5),
        (Hidden, 6),
    ),
]


@pytest.mark.parametrize(("kind", "count"), KINDS)
def test_blocks_are_the_network_whatever_its_code(kind: type[Network], count: int) -> None:
    """In eval mode and train mode, for batches of other sizes than the trace's, with every parameter in one block."""
    network, blocks = cut(kind)
    assert len(blocks.blocks) == count
    assert blocks.features == 4
    chain = nn.Sequential(*blocks.blocks)
    for batch in (4, 8):
        images = torch.randn(batch, 3, 8, 8)
        for training in (False, True):
            network.train(training)
            chain.train(training)
            outputs = []
            for run in (network, chain):
                torch.manual_seed(1)
                outputs.append(run(images))
            assert torch.equal(*outputs)
    owned = [id(value) for block in blocks.blocks for value in block.parameters()]
    assert len(owned) == len(set(owned))
    used = {id(value) for value in network.parameters()} - {id(network.scale)}
    assert used <= set(owned)


def test_layer_groups_tell_the_stem_and_which_modules_are_one_block() -> None:
    """The first group is the stem; a module of one group is one block, which it is not where groups are unknown."""
    network = Network()
    network.layers = nn.ModuleList(nn.Sequential(Layer(), Layer()) if index == 1 else Layer() for index in range(10))
    groups = {name: int(name[7]) if name.startswith("layers") else 0 for name, _ in network.named_parameters()}
    assert [len(list(block.parameters())) for block in cut_into_blocks(network, 8, groups).blocks] == [4, 4, *[2] * 8]
    assert [len(list(block.parameters())) for block in cut_into_blocks(network, 8).blocks] == [2] * 12


def test_on_device_meta_there_are_the_same_blocks_without_weights() -> None:
    """So plans are made without weights; the network's own tensors are not touched."""
    network, blocks = cut(Recomputed)
    with torch.device("meta"):
        outline = cut_into_blocks(Recomputed(), 8)
    assert outline.features == blocks.features
    for block, twin in zip(blocks.blocks, outline.blocks, strict=True):
        shapes = {name: value.shape for name, value in block.state_dict().items()}
        assert {name: value.shape for name, value in twin.state_dict().items()} == shapes
        assert all(value.is_meta for value in twin.state_dict().values())
    assert not any(value.is_meta for value in network.state_dict().values())


def test_a_network_that_returns_no_features_is_refused() -> None:
    """By what it returns."""

    class Maps(Network):
        def forward(self, images: Tensor) -> Tensor:
            hidden: Tensor = self.stem(images)
            return hidden

    with pytest.raises(ValueError, match=r"Maps returns no features .* but \(3, 4, 4, 4\)"):
        cut_into_blocks(Maps(), 8)


class DoublesUnseen(Network):
    """What it computes on device meta does not tell what it computes."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return hidden if hidden.is_meta or index != 2 else hidden * 2


class RaisesUnseen(Network):
    """On device meta alone, there is code that raises on all others."""

    def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
        return torch.linalg.cholesky(hidden) if hidden.is_meta and index == 2 else hidden


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(DoublesUnseen, "its blocks compute something else"), (RaisesUnseen, "linalg.cholesky"), (Loops, "Loops: ")],
)
def test_blocks_that_compute_something_else_or_nothing_are_not_used(
    kind: type[Network], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The network is one block, and a message says why."""
    network, blocks = cut(kind)
    assert blocks.blocks == [network]
    assert f"{kind.__name__} is one block, as it can't be cut: {reason}" in caplog.text


def test_code_that_depends_on_the_size_of_images_allows_no_other() -> None:
    """A size that the code computes with is a constant of the blocks; modules' own code is not concerned."""

    class Resizes(Network):
        def between(self, hidden: Tensor, index: int, images: Tensor) -> Tensor:  # noqa: ARG002
            return functional.interpolate(hidden, [side // 2 for side in hidden.shape[2:]]) if index == 1 else hidden

    check_other_size(Network(), 32, 16)
    check_other_size(Loops(), 32, 16)
    with pytest.raises(ValueError, match="images of 32 pixels alone"):
        check_other_size(Resizes(), 32, 16)


def test_new_weights_replace_what_was_computed_from_the_old_ones() -> None:
    """Modules that keep what they compute in eval mode do so until they are in train mode, or have new weights."""

    class KeepingLayer(Layer):
        kept: Tensor | None = None

        def train(self, mode: bool = True) -> Any:
            if mode:
                self.kept = None
            return super().train(mode)

        def forward(self, hidden: Tensor) -> Tensor:
            if self.training:
                return hidden * self.linear.weight.sum()
            if self.kept is None:
                self.kept = self.linear.weight.sum()
            return hidden * self.kept

    network = Network()
    network.layers[1] = KeepingLayer()
    chain = nn.Sequential(*cut_into_blocks(network, 8).blocks).eval()
    assert not chain[0].training
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = chain(images)
        chain.load_state_dict({name: value * 2 for name, value in chain.state_dict().items()})
        after, kept = chain(images), chain(images)
        assert not torch.equal(before, after)
        assert torch.equal(after, kept)
        assert torch.equal(after, chain.train()(images))
        assert chain.training

"""Evaluation: frozen blocks in float32, so that the activation cache does not change the numbers."""

import numpy as np
import pytest
import torch

from finetune.models.classifier import Classifier, build_classifier, build_network
from finetune.models.frozen_prefix import FrozenPrefix
from finetune.training.batch_source import BatchStream
from finetune.training.evaluation import predict

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    model = build_classifier(build_network("resnet18", 32), 5, 0.5)
    torch.nn.init.normal_(model.head[-1].weight, std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, 32, 32, generator=generator), torch.arange(4)) for _ in range(2)]


@pytest.mark.parametrize("cut", [0, 5, 9, 10])
def test_in_float32_scores_are_those_of_the_model_itself(
    cut: int, model: Classifier, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Bit for bit, however many blocks are frozen."""
    cut = min(cut, len(model.blocks))
    scores, labels = predict(model, BatchStream(0, cut, 2, batches), CPU, None)
    with torch.inference_mode():
        expected = torch.cat([torch.log_softmax(model(images), dim=1) for images, _ in batches])
    assert np.array_equal(scores, expected.numpy())
    assert list(labels) == [0, 1, 2, 3] * 2


def test_in_bfloat16_scores_are_those_from_cached_activations(
    model: Classifier, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> None:
    """Almost always the same bfloat16 logits; with the frozen blocks in bfloat16, most would be others."""
    cut = len(model.blocks)
    prefix = FrozenPrefix(model, cut, cut)
    cached = [(prefix.run(images, 0, cut), labels) for images, labels in batches]
    from_cache, _ = predict(model, BatchStream(cut, cut, 2, cached), CPU, torch.bfloat16)
    from_images, _ = predict(model, BatchStream(0, cut, 2, batches), CPU, torch.bfloat16)
    all_in_bfloat16, _ = predict(model, BatchStream(0, 0, 2, batches), CPU, torch.bfloat16)
    assert np.isclose(from_images, from_cache, atol=1e-5).mean() > 0.8
    assert np.isclose(all_in_bfloat16, from_cache, atol=1e-5).mean() < 0.5

"""When memory runs out: pieces are halved until they fit, and give the same result."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from finetune.errors import TrainingError
from finetune.models.classifier import Classifier
from finetune.models.microbatch import MicrobatchLimits, microbatch_sizes, min_batch_size, run_in_microbatches
from finetune.training.batch_source import BatchStream
from finetune.training.evaluation import predict
from tests.support.logs import each_log_line

CPU = torch.device("cpu")


@given(count=st.integers(1, 300), limit=st.none() | st.integers(1, 300), least=st.integers(1, 2))
def test_pieces_make_up_the_batch_and_keep_to_the_limits(count: int, limit: int | None, least: int) -> None:
    """None is smaller than the least, if the batch is not, nor larger than the limit, unless the least asks for it."""
    sizes = microbatch_sizes(count, MicrobatchLimits(limit, least))
    assert sum(sizes) == count
    assert sizes[0] - sizes[-1] <= 1
    assert min(sizes) >= min(least, count)
    assert max(sizes) <= max(limit or count, 2 * least - 1)
    assert limit is not None or sizes == [count]


def needs(most: int, seen: list[int]):  # type: ignore[no-untyped-def]
    """Return work that fits in memory up to so many images at a time."""

    def work(sizes: list[int]) -> int:
        for size in sizes:
            seen.append(size)
            if size > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return sum(sizes)

    return work


def test_micro_batches_are_halved_until_they_fit_and_stay_small() -> None:
    """32, 16, 8; then 8 at once; each attempt is reported."""
    seen: list[int] = []
    reported: list[tuple[str, list[int]]] = []

    def run(count: int, limit: int | None) -> tuple[int, int | None]:
        limits = MicrobatchLimits(limit)
        return run_in_microbatches(needs(9, seen), count, limits, CPU, "here", lambda *report: reported.append(report))

    assert run(32, None) == (32, 8)
    assert seen == [32, 16, 8, 8, 8, 8]
    attempts = [("out of memory here", [16, 16]), ("out of memory here", [8, 8, 8, 8])]
    assert reported == attempts
    assert run(16, 8) == (16, 8)
    assert reported == attempts


@pytest.mark.parametrize(("count", "least", "last"), [(8, 1, 1), (8, 2, 2), (5, 2, 3), (1, 2, 1)])
def test_when_the_smallest_piece_does_not_fit_the_error_says_what_to_lower(count: int, least: int, last: int) -> None:
    """Batch-norm is never given a single image of several."""
    seen: list[int] = []
    with pytest.raises(TrainingError, match=rf"out of memory here, even with {last} image.* Lower image_px"):
        run_in_microbatches(needs(0, seen), count, MicrobatchLimits(None, least), CPU, "here", lambda *_: None)
    assert seen[-1] == last


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    """They come through as they are, at once."""

    def work(sizes: list[int]) -> None:
        raise RuntimeError(f"shapes do not fit: {sizes}")

    with pytest.raises(RuntimeError, match=r"shapes do not fit: \[4\]"):
        run_in_microbatches(work, 4, MicrobatchLimits(None), CPU, "here", lambda *_: pytest.fail("no need"))


def test_only_batch_norm_that_trains_needs_two_pictures() -> None:
    """Frozen, it uses the statistics it has."""
    norm = nn.BatchNorm1d(3)
    assert min_batch_size(nn.Sequential(nn.Linear(2, 3), norm)) == 2
    norm.eval()
    assert min_batch_size(nn.Sequential(nn.Linear(2, 3), norm)) == 1
    assert min_batch_size(nn.LayerNorm(3)) == 1


def test_evaluation_in_pieces_gives_the_same_predictions_and_says_so() -> None:
    """A batch that does not fit goes through the network in halves, and so do the next ones."""
    torch.manual_seed(0)
    model = Classifier([nn.Flatten()], nn.Identity(), 12, 3, 0.0)
    nn.init.normal_(model.head[-1].weight)
    fed = BatchStream(0, 0, 2, [(torch.randn(6, 3, 2, 2), torch.arange(6) % 3) for _ in range(2)])
    whole, labels = predict(model, fed, CPU, None)
    seen: list[int] = []

    def hook(_: nn.Module, given: tuple[torch.Tensor]) -> None:
        seen.append(len(given[0]))
        if len(given[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.head.register_forward_pre_hook(hook)
    lines: list[str] = []
    with each_log_line(lines.append):
        pieces, same_labels = predict(model, fed, CPU, None)
    assert pieces == pytest.approx(whole, abs=1e-6)
    assert list(same_labels) == list(labels)
    assert seen == [6, 3, 3, 3, 3]
    assert lines == ["out of memory in evaluation: continues with 3 images at a time, which changes no result"]

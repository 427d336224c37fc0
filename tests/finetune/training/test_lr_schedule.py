"""Rate schedules at their first, peak and last step, and always in [0, 1]."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.training.lr_schedule import cosine_with_warmup, rewarm


def test_known_steps() -> None:
    """Warm-up over 4 of 12 steps, peak at the fifth, half-way at the eighth after it, nearly nothing at the last."""
    values = [cosine_with_warmup(step, 12, 4) for step in range(12)]
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[8] == pytest.approx(0.5)
    assert 0 < values[11] < 0.05


def test_no_warmup_starts_at_the_peak() -> None:
    """A warm-up of zero is no division by zero."""
    assert cosine_with_warmup(0, 10, 0) == 1.0
    assert rewarm(5, 5, 0) == 1.0
    assert rewarm(4, 5, 0) == 0.0


@given(total=st.integers(1, 500), warmup=st.integers(0, 500), step=st.integers(0, 1000))
def test_always_a_multiplier(total: int, warmup: int, step: int) -> None:
    """In [0, 1] for any lengths, past the end too."""
    assert 0.0 <= cosine_with_warmup(step, total, warmup) <= 1.0
    assert 0.0 <= rewarm(step, total, warmup) <= 1.0

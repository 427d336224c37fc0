"""Numbers by class: scikit-learn's, and nothing for a class that is not there."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from finetune.training.metrics import per_class_scores

ANSWERS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(ANSWERS)
def test_recall_and_f1_are_scikit_learns(answers: list[tuple[int, int]]) -> None:
    """Of each class with a picture, whatever was named; of the others, not a number."""
    labels, named = np.array(answers).T
    scores = np.log(np.full((len(answers), 5), 0.1, dtype=np.float32))
    scores[np.arange(len(answers)), named] = math.log(0.6)
    fared = per_class_scores(scores, labels)
    there = np.unique(labels)
    for found, score in ((fared.recall, recall_score), (fared.f1, f1_score)):
        expected = score(labels, named, labels=there, average=None, zero_division=0)
        assert found[there] == pytest.approx(expected, abs=1e-12)
        assert np.isnan(np.delete(found, there)).all()
    macro = f1_score(labels, named, labels=there, average="macro", zero_division=0)
    assert np.nanmean(fared.f1) == pytest.approx(macro, abs=1e-12)

"""The points of a plain grid are those of W&B's engine, without the engine."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune.sweep import search

VALUES = st.sampled_from(
    [0, 1, 2.5, 1e-3, 3e6, 1.0, True, False, "a", "1", "1e-3", "ü", [], [[0, 0.5]], None, {"a": 1}]
)
PARAMETERS = st.one_of(
    st.fixed_dictionaries({"value": VALUES}),
    st.fixed_dictionaries({"values": st.lists(VALUES, min_size=1, max_size=3)}),
)


def engine_points(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the points that the engine lists."""
    with search._seeded("grid"):  # without the warnings of the engine
        return [search._point(run) for run in search._call(spec, [], search.ALL_POINTS) if run is not None]


@given(st.dictionaries(st.sampled_from(["b", "a", "Z", "_c", "ab", "a_b"]), PARAMETERS, min_size=1, max_size=4))
def test_a_plain_grid_has_the_points_of_the_engine(parameters: dict[str, Any]) -> None:
    """In the same order, with values of the same types; None where only the engine knows."""
    spec = {"method": "grid", "parameters": parameters}
    points = search.plain_grid_points(spec)
    assert points is None or repr(list(points)) == repr(engine_points(spec))


def test_what_is_no_plain_grid_is_left_to_the_engine() -> None:
    """Values that are equal to it, distributions, nested parameters, probabilities."""
    for parameter in (
        {"values": [1, 1.0]},
        {"values": []},
        {"min": 1, "max": 3},
        {"distribution": "categorical", "values": [1, 2]},
        {"values": [1, 2], "probabilities": [0.5, 0.5]},
        {"parameters": {"a": {"value": 1}}},
    ):
        assert search.plain_grid_points({"parameters": {"a": parameter}}) is None
    assert search.grid_points({"method": "grid", "parameters": {"a": {"values": [1, 1.0]}}}) == [{"a": 1}]
    assert list(search.plain_grid_points({"parameters": {"a": {"values": [1, 2]}}}) or ()) == [{"a": 1}, {"a": 2}]

"""Which view an epoch sees, and at which size."""

import pytest

from finetune.cache.reuse import view_at, view_stream_name
from finetune.data.transforms import side_at


@pytest.mark.parametrize("views", [1, 3, 4])
def test_views_take_turns(views: int) -> None:
    """In every `views` epochs each view comes once."""
    for seed in range(5):
        seen = [view_at(epoch, views, seed) for epoch in range(4 * views)]
        for turn in range(4):
            assert sorted(seen[turn * views : (turn + 1) * views]) == list(range(views))


def test_each_seed_has_its_own_order_and_each_turn_too() -> None:
    """Else the seeds of a sweep would differ in the order of images alone."""
    orders = {tuple(view_at(epoch, 6, seed) for epoch in range(12)) for seed in range(10)}
    assert len(orders) == 10
    assert any(order[:6] != order[6:] for order in orders)
    assert view_at(5, 6, 3) == view_at(5, 6, 3)


def test_no_seed_of_a_run_is_in_the_name_of_a_views_stream() -> None:
    """Views are computed once for all seeds."""
    assert view_stream_name(3) == "view 3"


def test_pictures_grow_in_four_stages() -> None:
    """The last quarter is as large as val, and sides in between are multiples of 8."""
    assert [side_at(epoch, 8, 96, 160) for epoch in range(8)] == [96, 96, 120, 120, 136, 136, 160, 160]
    assert [side_at(epoch, 8, None, 160) for epoch in range(8)] == [160] * 8
    assert side_at(0, 1, 96, 160) == 96
    assert [side_at(epoch, 3, 100, 150) for epoch in range(3)] == [100, 120, 136]

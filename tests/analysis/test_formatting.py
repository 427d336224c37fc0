"""Numbers as text, at the ends of each unit."""

import pytest

from analysis import formatting


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((12.4, "12"), (999.4, "999"), (999.6, "1 k"), (20_190, "20.2 k"), (999_400, "999 k"), (999_600, "1 M")),
        *((20_190_000, "20.2 M"), (5e12, "5 T"), (1.2e15, "1,200 T"), (float("nan"), "–")),
    ],
)
def test_a_quantity_has_three_digits_and_the_unit_that_it_rounds_to(number: float, text: str) -> None:
    """Never 1e+03."""
    assert formatting.format_quantity(number) == text


def test_flops_and_energy_move_to_the_next_unit_where_they_round_to_it() -> None:
    """999.6 of a unit is 1 of the next."""
    flops = (16840, 999.6, 0.9996, 2e-6, 0)
    assert [formatting.format_gflops(count) for count in flops] == [
        *("16.8 TFLOPs", "1 TFLOPs", "1 GFLOPs", "2 kFLOPs", "0 kFLOPs"),
    ]
    joules = (45_000, 3_599_000, 7.2e6, float("nan"))
    assert [formatting.format_energy(energy) for energy in joules] == ["12.5 Wh", "1 kWh", "2 kWh", "not measured"]

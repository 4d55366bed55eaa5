"""The exponents of growth, by hand, and the chart that names them."""

import pandas as pd
import pytest
from benchmarks.scaling import exponent, scaling_chart


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_exponent_of_a_power(power):
    values = pd.Series([1, 4, 16])
    assert exponent(values, 3.0 * values**power) == pytest.approx(power)


def test_the_chart_has_a_place_for_each_and_names_its_exponent():
    rows = [(what, value, value * 2.0, 1000 if what == "a" else None, 1.0) for what in "abc" for value in (1, 2)]
    table = pd.DataFrame(rows, columns=["what", "value", "ms", "peak MiB", "exponent"])
    shown = [axes for axes in scaling_chart(table).axes if axes.get_title()]
    assert [axes.get_xlabel() for axes in shown] == ["a", "b", "c"]
    assert {axes.get_title() for axes in shown} == {"grows with its power 1.00"}

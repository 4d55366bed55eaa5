"""The exponents of growth, by hand."""

import pandas as pd
import pytest
from benchmarks.scaling import exponent


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_exponent_of_a_power(power):
    values = pd.Series([1, 4, 16])
    assert exponent(values, 3.0 * values**power) == pytest.approx(power)

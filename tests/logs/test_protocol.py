"""The cuts of a log: exact in the decimals in which a share is written."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conrec.errors import DataError
from conrec.protocol import Periods, periods_of


def test_cuts_are_exact_where_binary_floats_are_not() -> None:
    assert (floor(0.7 * 90), 7 * 90 // 10) == (62, 63)
    assert periods_of(np.arange(90, dtype=np.int64), 0.7, 0.8) == Periods(63, 72, 90)
    assert (floor(0.57 * 100), 57 * 100 // 100) == (56, 57)
    assert periods_of(np.arange(100, dtype=np.int64), 0.29, 0.57) == Periods(29, 57, 100)


@given(st.integers(100, 3000), st.integers(1, 98), st.integers(1, 98))
def test_cuts_are_those_of_whole_numbers(n: int, first: int, gap: int) -> None:
    second = min(first + gap, 99)
    periods = periods_of(np.arange(n, dtype=np.int64), first / 100, second / 100)
    assert periods == Periods(first * n // 100, second * n // 100, n)


def test_cuts_that_leave_a_period_empty_are_an_error() -> None:
    with pytest.raises(DataError, match="three periods that all hold events"):
        periods_of(np.zeros(50, dtype=np.int64), 0.7, 0.8)
    with pytest.raises(DataError, match="no events"):
        periods_of(np.zeros(0, dtype=np.int64), 0.7, 0.8)

"""Records: codes are exact, scores within the stated bound, and the bytes are the documented ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.filtering.stores.layout import Layout, check_sets, key_of, stored_scores

LEVELS = st.lists(st.integers(1, 70_000) | st.sampled_from([1, 2, 256, 257, 8192, 1 << 25]), min_size=1, max_size=4)


def plain_record(codes: Array, scores: Array, age: int, layout: Layout) -> bytes:
    """The description of `conrec.filtering.stores.layout`, word by word, bit by bit; for scores below 65,504."""
    filled = [(row.tolist(), float(score)) for row, score in zip(codes, scores, strict=True) if row[0] >= 0]
    best = max((score for _, score in filled), default=0.0)
    worst = min((score for _, score in filled), default=0.0)
    widths = [max(1, (size - 1).bit_length()) for size in layout.sizes]
    bits = ""
    for row, _ in filled:
        for width, code in zip(widths, row, strict=True):
            bits += format(code, f"0{width}b")[::-1]
    bits = bits.ljust(-(-layout.slots * sum(widths) // 8) * 8, "0")
    packed = bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8))
    steps = [0 if best == worst else round((score - worst) / (best - worst) * 255) for _, score in filled]
    return struct.pack("<BHee", len(filled), age, best, worst) + packed + bytes(steps).ljust(layout.slots, b"\0")


def drawn(
    data: st.DataObject, users: int, slots: int, sizes: list[int], scores: st.SearchStrategy[float]
) -> tuple[Array, Array]:
    """Some predict sets, empty slots anywhere."""
    columns = [data.draw(arrays.arrays(np.int32, (users, slots), elements=st.integers(0, size - 1))) for size in sizes]
    codes = np.stack(columns, axis=2)
    codes[data.draw(arrays.arrays(np.bool_, (users, slots)))] = -1
    return codes, data.draw(arrays.arrays(np.float32, (users, slots), elements=scores))


@settings(max_examples=60, deadline=None)
@given(st.data(), LEVELS, st.integers(1, 25), st.integers(0, 4))
def test_round_trip(data: st.DataObject, sizes: list[int], slots: int, users: int) -> None:
    """Codes exact; scores off by half a step of the set's range and the rounding of its ends; order kept."""
    layout = Layout.of(slots, sizes)
    codes, scores = drawn(data, users, slots, sizes, st.floats(-6e4, 6e4, width=32))
    ages = data.draw(arrays.arrays(np.int64, users, elements=st.integers(0, 40_000)))
    records = layout.pack(codes, scores, ages)
    many_codes, many_scores, many_ages = layout.read_many(records)
    np.testing.assert_array_equal(many_ages, np.minimum(ages, 32_767))
    for user in range(users):
        here = codes[user, :, 0] >= 0
        read_codes, read_scores, age = layout.read(records[user].tobytes())
        np.testing.assert_array_equal(read_codes, codes[user][here])
        assert age == many_ages[user]
        n = int(here.sum())
        np.testing.assert_array_equal(many_codes[user, :n], read_codes)
        np.testing.assert_array_equal(many_scores[user, :n], read_scores)
        assert (many_codes[user, n:] == -1).all()
        assert (many_scores[user, n:] == -np.inf).all()
        if n:
            given_scores = scores[user][here].astype(np.float64)
            best, worst = given_scores.max(), given_scores.min()
            ends = max(abs(float(np.float16(end)) - end) for end in (best, worst))
            assert ends <= max(2**-11 * max(abs(best), abs(worst)), 2**-25)
            bound = (best - worst) / 510 + ends + 1e-6 * max(abs(best), abs(worst))
            assert np.abs(read_scores - given_scores).max() <= bound
            order = np.argsort(given_scores, kind="stable")
            assert (np.diff(read_scores[order]) >= 0).all()
    again = layout.pack(many_codes, many_scores, many_ages)
    np.testing.assert_array_equal(again, records, "what was read and is packed again gives the same record")


@settings(max_examples=40, deadline=None)
@given(st.data(), LEVELS, st.integers(1, 9), st.integers(0, 32_767))
def test_the_bytes_are_the_documented_ones(data: st.DataObject, sizes: list[int], slots: int, age: int) -> None:
    layout = Layout.of(slots, sizes)
    # Whole numbers whose range is a divisor of 255 · 2^k: no step lies between two.
    codes, scores = drawn(data, 1, slots, sizes, st.integers(0, 255).map(float))
    record = layout.pack(codes, scores, np.asarray([age]))[0].tobytes()
    assert len(record) == layout.size
    plain = plain_record(codes[0], scores[0], age, layout)
    assert record[:-slots] == plain[:-slots]
    assert all(abs(one - other) <= 1 for one, other in zip(record[-slots:], plain[-slots:], strict=True))


def test_the_size_that_the_issue_asks_for() -> None:
    """28 users on a page of LMDB: 4,080 bytes, of which each takes 8 + key + value, rounded up to even, and 2."""
    layout = Layout.of(20, (8192, 8192, 8192))
    assert layout.size == 125
    assert 28 * (8 + len(key_of("12345678")) + layout.size + 2) <= 4080
    assert Layout.of(20, (64, 64, 64, 900)).size == 7 + 70 + 20


def test_large_and_infinite_scores_are_bounded() -> None:
    """Counts of millions count in units of 65,536; what no float16 reaches then is cut off; order stays."""
    layout = Layout.of(3, (4,))
    codes = np.zeros((4, 3, 1), dtype=np.int32)
    scores = np.asarray([[3e6, 2e6, 7e5], [np.inf, 5.0, -np.inf], [65_504, 0, -65_504], [65_505, 1, 0]])
    _, read, ages = layout.read_many(layout.pack(codes, scores, np.asarray([9, 9, 9, 9])))
    np.testing.assert_allclose(read[0], scores[0], rtol=0.002, atol=2.3e6 / 510 + 2**-11 * 3e6)
    largest = 65_504.0 * 65_536
    np.testing.assert_allclose(read[1][[0, 2]], [largest, -largest])
    np.testing.assert_allclose(read[2], scores[2], atol=2 * 65_504 / 510)
    np.testing.assert_allclose(read[3], scores[3], atol=65_505 / 510 + 2**-11 * 65_505)
    assert ages.tolist() == [9] * 4


def test_scores_as_a_store_gives_them_back() -> None:
    scores = np.asarray([[-0.1, -np.inf, -1.3, -7.7], [-np.inf] * 4, [5e6, 3.0, 2.0, 1.0]], dtype=np.float32)
    found = stored_scores(scores)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(scores))
    ends = np.float16([-0.1, -7.7]).astype(np.float64)
    step = round((-1.3 + 7.7) / (-0.1 + 7.7) * 255)
    np.testing.assert_allclose(found[0, [0, 3]], ends, rtol=1e-6)
    assert found[0, 2] == pytest.approx(ends[1] + step / 255 * (ends[0] - ends[1]), rel=1e-6)
    assert found[0, 2] != np.float32(-1.3)
    layout = Layout.of(4, (9, 9))
    codes = np.where(np.isneginf(scores), -1, 3)[:, :, None].repeat(2, axis=2)
    _, read, _ = layout.read_many(layout.pack(codes, scores, np.zeros(3, dtype=np.int64)))
    np.testing.assert_array_equal(found[0, [0, 2, 3]], read[0, :3])
    np.testing.assert_array_equal(found[2], read[2])


def test_ages_are_written_anew_and_flags_stay() -> None:
    layout = Layout.of(2, (4, 4))
    codes = np.zeros((3, 2, 2), dtype=np.int32)
    scores = np.asarray([[1e6, 0], [1, 0], [1, 1]])
    records = layout.pack(codes, scores, np.asarray([5, 6, 32_767]))
    older = layout.aged(records, 100)
    assert layout.read_many(older)[2].tolist() == [105, 106, 32_767]
    np.testing.assert_array_equal(layout.read_many(older)[1], layout.read_many(records)[1])
    layout.set_ages(older, np.asarray([5, 6, 40_000]))
    np.testing.assert_array_equal(older, records)


def test_what_no_record_can_hold_is_refused() -> None:
    for slots, sizes in ((0, (4,)), (256, (4,)), (1, ()), (1, (0,)), (1, (2**25 + 1,))):
        with pytest.raises(DataError, match="expected from 1 to"):
            Layout.of(slots, sizes)
    layout = Layout.of(1, (4, 9))
    for codes in ([[[4, 0]]], [[[0, 9]]], [[[0, -1]]]):
        with pytest.raises(DataError, match=r"the user 'ann' has the codes .* codes from 0 to 3 / 8 by level"):
            check_sets(np.asarray(codes), np.zeros((1, 1)), layout, ["ann"])
    with pytest.raises(DataError, match="NaN"):
        check_sets(np.zeros((1, 1, 2), dtype=int), np.asarray([[np.nan]]), layout, ["ann"])


def test_ids_that_are_no_unicode_have_a_key_that_nobody_has() -> None:
    assert key_of("\ud800") == b"u\xed\xa0\x80"
    assert len(key_of("é" * 10_000_000)) == 33

"""The three ways to tell apart items whose codes collide, against literal transcriptions of their rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import SemanticIdsConfig
from conrec.errors import DataError
from conrec.items.naming.collisions import name_items, name_more, resolve_nearest, without_room
from conrec.items.semantic_ids import SemanticIds


def quantise(latents: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Residual quantisation, spelt out."""
    codes = np.zeros((len(latents), 3), dtype=np.int32)
    for item, latent in enumerate(latents):
        residual = latent.copy()
        for level in range(3):
            codes[item, level] = np.argmin(((codebooks[level] - residual) ** 2).sum(axis=1))
            residual = residual - codebooks[level][codes[item, level]]
    return codes


def resolve_all(codes: np.ndarray, latents: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Resolution of items that are all of the training period."""
    return resolve_nearest(codes, latents, codebooks, np.ones(len(codes), dtype=np.bool_))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 80), st.booleans())
@settings(max_examples=120, deadline=None)
def test_every_item_ends_with_a_semantic_id_of_its_own(seed: int, size: int, n: int, identical: bool) -> None:
    draw = np.random.default_rng(seed)
    codebooks = draw.normal(size=(3, size, 2)) / np.asarray([1, 2, 4]).reshape(3, 1, 1)
    latents = np.repeat(draw.normal(size=(1, 2)), n, axis=0) if identical else draw.normal(size=(n, 2))
    codes = quantise(latents, codebooks)
    if np.bincount(codes[:, 0]).max() > size * size:
        with pytest.raises(DataError, match="share the first code"):
            resolve_all(codes, latents, codebooks)
        return
    resolved = resolve_all(codes, latents, codebooks)
    assert resolved.dtype == np.int32
    assert len({tuple(row) for row in resolved.tolist()}) == n
    assert resolved.min() >= 0
    assert resolved.max() < size
    # The first code never moves; the second only where its bucket was overfull.
    assert (resolved[:, 0] == codes[:, 0]).all()
    for item in np.flatnonzero(resolved[:, 1] != codes[:, 1]):
        assert (codes[:, :2] == codes[item, :2]).all(axis=1).sum() > size
    # Every raw code that somebody wanted is kept by one who wanted it.
    wanted = {tuple(row) for row in codes.tolist()}
    kept = {tuple(raw) for raw, now in zip(codes.tolist(), resolved.tolist(), strict=True) if raw == now}
    assert kept == wanted
    assert np.array_equal(resolved, resolve_all(codes, latents, codebooks))


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 60), st.floats(0.05, 1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_later_items_change_no_name_of_a_training_item(
    seed: int, size: int, n: int, share: float, identical: bool
) -> None:
    draw = np.random.default_rng(seed)
    codebooks = draw.normal(size=(3, size, 2)) / np.asarray([1, 2, 4]).reshape(3, 1, 1)
    latents = np.repeat(draw.normal(size=(1, 2)), n, axis=0) if identical else draw.normal(size=(n, 2))
    # No more than can be named, so that no case is thrown away.
    latents = latents[: size * size]
    train = draw.random(len(latents)) < share
    codes = quantise(latents, codebooks)
    resolved = resolve_nearest(codes, latents, codebooks, train)
    assert len({tuple(row) for row in resolved.tolist()}) == len(latents)
    assert (resolved[:, 0] == codes[:, 0]).all()
    assert resolved.min() >= 0
    assert resolved.max() < size
    assert np.array_equal(resolved[train], resolve_all(codes[train], latents[train], codebooks))
    # A later item is moved only where another item has its raw code.
    names = {tuple(row) for row in resolved.tolist()}
    assert {tuple(row) for row in codes.tolist()} <= names
    training_names = {tuple(row) for row in resolved[train].tolist()}
    for item in np.flatnonzero(~train & (resolved[:, 1] != codes[:, 1])):
        bucket = tuple(codes[item, :2])
        wanting = (codes[~train, :2] == bucket).all(axis=1).sum()
        assert wanting + sum(name[:2] == bucket for name in training_names) > size


def test_a_later_item_that_is_nearer_yields_to_a_training_item() -> None:
    codebooks = one_dimensional([0.0, 1.0, 3.0])
    latents = np.asarray([[0.0], [0.4]])
    codes = quantise(latents, codebooks)
    assert codes[:, 2].tolist() == [0, 0]
    assert resolve_nearest(codes, latents, codebooks, np.asarray([True, True]))[:, 2].tolist() == [0, 1]
    assert resolve_nearest(codes, latents, codebooks, np.asarray([False, True]))[:, 2].tolist() == [1, 0]


def test_later_items_leave_a_bucket_that_training_items_fill() -> None:
    codebooks = np.zeros((3, 2, 1))
    codebooks[1, :, 0] = [0.0, 10.0]
    codebooks[2, :, 0] = [0.0, 1.0]
    codebooks[0, 1, 0] = 100.0
    latents = np.asarray([[0.0], [0.3], [0.1], [0.2]])
    codes = quantise(latents, codebooks)
    train = np.asarray([False, True, True, False])
    assert resolve_nearest(codes, latents, codebooks, train).tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]]


def one_dimensional(last: list[float]) -> np.ndarray:
    """Codebooks of one dimension whose first two levels are all zero but for far-away codes."""
    codebooks = np.full((3, len(last), 1), 1000.0)
    codebooks[:2, 0] = 0.0
    codebooks[2, :, 0] = last
    return codebooks


def test_the_nearest_keeps_its_code_and_the_others_take_the_nearest_free_one() -> None:
    codebooks = one_dimensional([0.0, 1.0, 3.0, 9.0])
    latents = np.asarray([[0.3], [-0.1], [0.2], [1.1]])
    codes = quantise(latents, codebooks)
    assert codes[:, 2].tolist() == [0, 0, 0, 1]
    # Item 1 is nearest to 0.0 and keeps it; 1.0 is kept by item 3; item 2 comes next and takes 3.0, item 0 9.0.
    assert resolve_all(codes, latents, codebooks)[:, 2].tolist() == [3, 0, 2, 1]


def test_an_overfull_bucket_gives_its_farthest_item_to_the_nearest_second_code() -> None:
    codebooks = np.zeros((3, 2, 1))
    codebooks[0, :, 0] = [0.0, 100.0]
    codebooks[1, :, 0] = [0.0, 10.0]
    codebooks[2, :, 0] = [0.0, 1.0]
    latents = np.asarray([[0.0], [0.1], [0.4]])
    codes = quantise(latents, codebooks)
    assert codes.tolist() == [[0, 0, 0]] * 3
    # Under second code 1 the residual of item 2 is -9.6, nearest to last code 0.
    assert resolve_all(codes, latents, codebooks).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_ties_go_to_the_lower_item_and_code() -> None:
    codebooks = one_dimensional([0.0, 1.0, -1.0])
    latents = np.zeros((3, 1))
    assert resolve_all(quantise(latents, codebooks), latents, codebooks)[:, 2].tolist() == [0, 1, 2]


def test_more_items_than_names_is_an_error_that_says_what_to_raise() -> None:
    latents = np.zeros((5, 1))
    with pytest.raises(DataError, match=r"5 items share the first code 0.*at most 2 × 2 = 4.*rqvae\.codebook_size"):
        resolve_all(np.zeros((5, 3), dtype=np.int32), latents, np.zeros((3, 2, 1)))


def squared(point: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    return ((codewords - point) ** 2).sum(axis=1)


def by_nearness(point: np.ndarray, codewords: np.ndarray) -> list[int]:
    """Codes, nearest first, then lower."""
    return np.argsort(squared(point, codewords), kind="stable").tolist()


def plain_nearest(
    codes: np.ndarray, latents: np.ndarray, codebooks: np.ndarray, train: np.ndarray, cap: int | None
) -> list[list[int]]:
    """The rules of `resolve_nearest`, one item after the other."""
    latents, codebooks = latents.astype(np.float64), codebooks.astype(np.float64)
    size = codebooks.shape[1]
    names = codes.tolist()
    taken: set[tuple[int, ...]] = set()

    def left(item: int, second: int) -> np.ndarray:
        return latents[item] - codebooks[0][codes[item, 0]] - codebooks[1][second]

    def free(item: int, second: int, among: int) -> list[int]:
        ranked = by_nearness(left(item, second), codebooks[2])[:among]
        return [last for last in ranked if (codes[item, 0], second, last) not in taken]

    def give(item: int, second: int, last: int) -> None:
        names[item] = [int(codes[item, 0]), second, last]
        taken.add(tuple(names[item]))

    def distance(item: int, second: int, last: int) -> float:
        return float(squared(left(item, second), codebooks[2][last : last + 1])[0])

    for group in (train, ~train):
        own = {item: distance(item, *names[item][1:]) for item in np.flatnonzero(group).tolist()}
        turns = sorted(own, key=lambda item: (own[item], item))
        others = []
        for item in turns:
            if tuple(names[item]) in taken:
                others.append(item)
            else:
                give(item, *names[item][1:])
        if cap is not None and cap < size:
            wandering = []
            for item in others:
                found = free(item, names[item][1], cap)
                if found:
                    give(item, names[item][1], found[0])
                else:
                    wandering.append(item)
            for item in wandering:
                seconds = by_nearness(latents[item] - codebooks[0][codes[item, 0]], codebooks[1])
                ways = [(second, free(item, second, among)) for among in (cap, size) for second in seconds]
                second, found = next(way for way in ways if way[1])
                give(item, second, found[0])
            continue
        room = {
            (first, second): size - sum(name[:2] == (first, second) for name in taken)
            for first in range(size)
            for second in range(size)
        }
        staying, guests = [], []
        for item in others:
            home = tuple(names[item][:2])
            (staying if room[home] else guests).append(item)
            room[home] = max(0, room[home] - 1)
        for item in guests:
            first = int(codes[item, 0])
            seconds = by_nearness(latents[item] - codebooks[0][first], codebooks[1])
            names[item][1] = next(second for second in seconds if room[first, second])
            room[first, names[item][1]] -= 1
        near = {item: by_nearness(left(item, names[item][1]), codebooks[2])[0] for item in guests}
        new = {item: distance(item, names[item][1], near[item]) for item in guests}
        for item in [*staying, *sorted(guests, key=lambda item: (new[item], item))]:
            give(item, names[item][1], free(item, names[item][1], size)[0])
    return names


def drawn(
    seed: int, size: int, n: int, kind: str, dim: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, latents, codebooks and training marks; no more items than a first code can name."""
    draw = np.random.default_rng(seed)
    codebooks = draw.normal(size=(3, size, dim)) / np.asarray([1, 2, 4]).reshape(3, 1, 1)
    latents = draw.normal(size=(min(n, size * size), dim))
    if kind == "identical":
        latents[:] = latents[0]
    elif kind == "twins":
        latents = latents[draw.integers(len(latents), size=len(latents))]
    elif kind == "coarse":  # many distances are equal
        codebooks, latents = np.round(codebooks * 2) / 2, np.round(latents)
    codebooks, latents = codebooks.astype(np.float32), latents.astype(np.float32)
    return quantise(latents, codebooks), latents, codebooks, draw.random(len(latents)) < 0.6


KINDS = st.sampled_from(["different", "identical", "twins", "coarse"])


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 36), KINDS, st.none() | st.integers(1, 7))
@settings(max_examples=250, deadline=None)
def test_nearest_is_what_its_rules_say(seed: int, size: int, n: int, kind: str, cap: int | None) -> None:
    codes, latents, codebooks, train = drawn(seed, size, n, kind)
    found = resolve_nearest(codes, latents, codebooks, train, cap)
    assert found.tolist() == plain_nearest(codes, latents, codebooks, train, cap)
    assert len({tuple(row) for row in found.tolist()}) == len(codes)
    assert (found[:, 0] == codes[:, 0]).all()
    assert np.array_equal(found[train], resolve_nearest(codes[train], latents[train], codebooks, train[train], cap))


@pytest.mark.parametrize("cap", [None, 3, 20])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_many_items_in_many_dimensions_are_placed_to_the_last_bit(cap: int | None, scale: float) -> None:
    """Where one product decides about many codes, whatever the size of the numbers."""
    codes, latents, codebooks, train = drawn(3, 32, 700, "different", dim=24)
    latents = (latents[:70][np.arange(700) % 70] * scale).astype(np.float32)
    codebooks = (codebooks * scale).astype(np.float32)
    codes = quantise(latents.astype(np.float64), codebooks.astype(np.float64))
    found = resolve_nearest(codes, latents, codebooks, train, cap)
    assert found.tolist() == plain_nearest(codes, latents, codebooks, train, cap)
    assert (found != codes).any(axis=1).sum() > 500


def test_codes_that_float32_cannot_tell_apart_are_told_apart() -> None:
    codebooks = one_dimensional([0.0, 1.0 + 2e-9, 1.0, 1.0 + 1e-9])
    latents = np.asarray([[0.0], [0.1], [0.1], [0.1]])
    codes = quantise(latents, codebooks)
    assert resolve_all(codes, latents, codebooks)[:, 2].tolist() == [0, 2, 3, 1]


def test_a_capped_item_prefers_a_near_code_under_another_second_code() -> None:
    codebooks = np.zeros((3, 3, 1))
    codebooks[0, :, 0] = [0.0, 100.0, 200.0]
    codebooks[1, :, 0] = [0.0, 2.0, 50.0]
    codebooks[2, :, 0] = [0.0, 0.5, 9.0]
    latents = np.asarray([[0.0], [0.1], [0.2]])
    codes = quantise(latents, codebooks)
    assert codes.tolist() == [[0, 0, 0]] * 3
    every = np.ones(3, dtype=np.bool_)
    assert resolve_nearest(codes, latents, codebooks, every).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    # 9.0 is third of three; under the second code 2.0 the residual of -1.8 has 0.0 nearest.
    assert resolve_nearest(codes, latents, codebooks, every, 2).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert resolve_nearest(codes, latents, codebooks, every, 1).tolist() == [[0, 0, 0], [0, 1, 0], [0, 2, 0]]
    assert np.array_equal(
        resolve_nearest(codes, latents, codebooks, every, 3), resolve_nearest(codes, latents, codebooks, every)
    )


def test_where_no_near_code_is_free_any_is_taken() -> None:
    """Nine items of one place fill all nine names of their first code, with a cap of one."""
    codebooks = np.zeros((3, 3, 1))
    codebooks[0, :, 0] = [0.0, 100.0, 200.0]
    codebooks[1, :, 0] = [0.0, 2.0, 50.0]
    codebooks[2, :, 0] = [0.0, 0.5, 9.0]
    latents = np.zeros((9, 1))
    codes = quantise(latents, codebooks)
    found = resolve_nearest(codes, latents, codebooks, np.ones(9, dtype=np.bool_), 1)
    # Three are nearest under one second code each; then the nearest second code that has any.
    assert found.tolist() == [[0, second, last] for second, last in
                              [(0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]]  # fmt: skip


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 40), KINDS)
@settings(max_examples=80, deadline=None)
def test_an_extra_level_counts_the_items_of_each_group(seed: int, size: int, n: int, kind: str) -> None:
    codes, latents, codebooks, train = drawn(seed, size, n, kind)
    ids = name_items(codes, latents, codebooks, train, SemanticIdsConfig(collisions="extra_level"))
    assert (ids.collisions, ids.resolved.dtype) == ("extra_level", np.int32)
    assert np.array_equal(ids.resolved[:, :3], codes)
    wide, books = latents.astype(np.float64), codebooks.astype(np.float64)
    left = wide - sum(books[level][codes[:, level]] for level in range(2))
    distance = ((wide - books[0][codes[:, 0]] - books[1][codes[:, 1]] - books[2][codes[:, 2]]) ** 2).sum(axis=1)
    assert np.allclose(distance, ((left - books[2][codes[:, 2]]) ** 2).sum(axis=1))
    groups: dict[tuple[int, ...], list[int]] = {}
    for item in sorted(range(len(codes)), key=lambda item: (not train[item], distance[item], item)):
        groups.setdefault(tuple(codes[item].tolist()), []).append(item)
    for items in groups.values():
        assert ids.resolved[items, 3].tolist() == list(range(len(items)))
    assert ids.extra_size == max(map(len, groups.values()))
    alone = name_items(
        codes[train], latents[train], codebooks, train[train], SemanticIdsConfig(collisions="extra_level")
    )
    assert np.array_equal(alone.resolved, ids.resolved[train])


def test_shared_semantic_ids_are_the_raw_codes() -> None:
    codes, latents, codebooks, train = drawn(0, 3, 9, "twins")
    ids = name_items(codes, latents, codebooks, train, SemanticIdsConfig(collisions="shared"))
    assert ids.shared
    assert np.array_equal(ids.resolved, codes)


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 16), KINDS, st.none() | st.integers(1, 4))
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("collisions", ["nearest", "extra_level", "shared"])
def test_further_items_are_named_as_later_ones_are_and_move_nobody(
    collisions: str, seed: int, size: int, n: int, kind: str, cap: int | None
) -> None:
    codes, latents, codebooks, _ = drawn(seed, size, n, kind)
    cap = cap if collisions == "nearest" else None
    config = SemanticIdsConfig(collisions=collisions, cap=cap)
    old = np.arange(len(codes)) < (len(codes) + 1) // 2
    table = name_items(codes[old], latents[old], codebooks, old[old], config)
    grown = name_more(table, codes[~old], latents[~old], codebooks, cap)
    # As if they had been there from the start, but not in the training period.
    together = name_items(codes, latents, codebooks, old, config)
    assert np.array_equal(grown.codes, together.codes)
    assert np.array_equal(grown.resolved, together.resolved)
    assert (grown.extra_size, grown.collisions) == (together.extra_size, collisions)
    full = without_room(table, codes[~old])
    if collisions == "extra_level":
        assert full.any() == (grown.extra_size > table.extra_size)
        assert full.sum() == (grown.resolved[~table_rows(table, grown), 3] >= table.extra_size).sum()
    else:
        assert not full.any()


def table_rows(table: SemanticIds, grown: SemanticIds) -> np.ndarray:
    return np.arange(len(grown)) < len(table)


def test_items_without_room_are_those_behind_the_last_free_name() -> None:
    codes = np.zeros((3, 3), dtype=np.int32)
    table = SemanticIds(codes, np.asarray([[0, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=np.int32), 2)
    more = np.asarray([[0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=np.int32)
    assert without_room(table, more).tolist() == [False, False, True]
    with pytest.raises(DataError, match="5 items share the first code 0"):
        name_more(table, more, np.zeros((3, 1)), np.zeros((3, 2, 1)))
    fourth = SemanticIds(codes, np.column_stack([codes, [0, 1, 2]]).astype(np.int32), 2, "extra_level", 3)
    assert without_room(fourth, more).tolist() == [False, False, True]
    assert not without_room(SemanticIds(codes, codes, 2, "shared"), more).any()


@pytest.mark.parametrize("collisions", ["extra_level", "shared"])
def test_a_cap_where_no_item_moves_is_refused(collisions):
    with pytest.raises(ValueError, match=r'cap belongs to collisions = "nearest"'):
        SemanticIdsConfig(collisions=collisions, cap=3)

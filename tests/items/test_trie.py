"""The trie against a plain dict of dicts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.errors import DataError
from conrec.items.trie import Trie


def plain_trie(codes: list[tuple[int, int, int]]) -> dict[int, Any]:
    trie: dict[int, Any] = {}
    for item, (a, b, c) in enumerate(codes):
        trie.setdefault(a, {}).setdefault(b, {})[c] = item
    return trie


def plain_mask(node: Any, size: int) -> list[bool]:
    return [isinstance(node, dict) and code in node for code in range(size)]


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], int]:
    used = draw(st.integers(1, 6))
    code = st.integers(0, used - 1)
    codes = draw(st.lists(st.tuples(code, code, code), min_size=1, max_size=40, unique=True))
    return codes, used + draw(st.integers(0, 4))


@given(catalogues())
@settings(max_examples=150, deadline=None)
def test_every_prefix_agrees_with_a_plain_trie(catalogue: tuple[list[tuple[int, int, int]], int]) -> None:
    codes, size = catalogue
    trie, plain = Trie.from_codes(torch.tensor(codes), size), plain_trie(codes)
    assert (trie.levels, trie.n_items, len(trie)) == (3, len(codes), len(codes))
    assert trie.codes.dtype == torch.int32
    assert trie.codes.tolist() == [list(row) for row in codes]
    states, nodes = trie.root(1), [plain]
    for level in range(3):
        assert trie.mask(states, level).tolist() == [plain_mask(node, size) for node in nodes]
        # Every code after every state, allowed or not, as one [states, size] step.
        every = torch.arange(size).expand(len(nodes), size)
        states = trie.step(states.unsqueeze(1).expand(-1, size), every, level).reshape(-1)
        nodes = [node.get(code) if isinstance(node, dict) else None for node in nodes for code in range(size)]
        assert [one >= 0 for one in states.tolist()] == [node is not None for node in nodes]
        keep = states >= 0
        states, nodes = states[keep], [node for node in nodes if node is not None]
    assert states.tolist() == nodes


@given(catalogues())
@settings(max_examples=50, deadline=None)
def test_an_items_own_codes_lead_to_it_in_any_shape(catalogue: tuple[list[tuple[int, int, int]], int]) -> None:
    codes, size = catalogue
    trie = Trie.from_codes(torch.tensor(codes), size)
    state = trie.root(len(codes)).reshape(1, -1)
    for level in range(3):
        own = trie.codes[:, level].long().reshape(1, -1)
        assert trie.mask(state, level).gather(-1, own.unsqueeze(-1)).all()
        state = trie.step(state, own, level)
    assert state[0].tolist() == list(range(len(codes)))


@pytest.fixture
def trie() -> Trie:
    return Trie.from_codes(torch.tensor([[4, 0, 2], [0, 1, 1], [4, 3, 2], [4, 0, 0]]), 8)


def test_lost_states_stay_lost(trie: Trie) -> None:
    lost = torch.tensor([-1, -1])
    for level in range(3):
        assert not trie.mask(lost, level).any()
        assert trie.step(lost, torch.tensor([0, 4]), level).tolist() == [-1, -1]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_codes_outside_the_codebook_are_not_allowed(trie: Trie, level: int) -> None:
    assert trie.step(trie.root(3), torch.tensor([-1, 8, 1 << 40]), level).tolist() == [-1, -1, -1]


def test_a_code_below_zero_does_not_reach_the_node_before(trie: Trie) -> None:
    # Node 1, code -8 + 1 would have the key of node 0, code 1, which exists.
    state = trie.step(trie.root(1), torch.tensor([4]), 0)
    assert trie.step(state, torch.tensor([-7]), 1).tolist() == [-1]


def test_one_item() -> None:
    trie = Trie.from_codes(torch.tensor([[3, 2, 1]]), 4)
    state = trie.root(1)
    for level, code in enumerate((3, 2, 1)):
        assert trie.mask(state, level).nonzero().tolist() == [[0, code]]
        state = trie.step(state, torch.tensor([code]), level)
    assert state.tolist() == [0]


def test_no_states_give_no_masks(trie: Trie) -> None:
    assert trie.mask(trie.root(0), 1).shape == (0, 8)


def test_int64_codes_are_taken(trie: Trie) -> None:
    again = Trie.from_codes(trie.codes.to(torch.int64), 8)
    assert torch.equal(again.codes, trie.codes)


def test_bad_codes_are_refused() -> None:
    with pytest.raises(DataError, match=r"items 0 and 2 have the same semantic ID \[1, 1, 1\]"):
        Trie.from_codes(torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1]]), 2)
    with pytest.raises(DataError, match=r"item 1 has the codes \[0, 2, 0\].*codes from 0 to 1"):
        Trie.from_codes(torch.tensor([[1, 1, 1], [0, 2, 0]]), 2)
    with pytest.raises(DataError, match="at least one item"):
        Trie.from_codes(torch.empty(0, 3, dtype=torch.int64), 2)


def test_unknown_level_is_a_programming_error(trie: Trie) -> None:
    with pytest.raises(ValueError, match="level 3"):
        trie.mask(trie.root(1), 3)


def test_moving_to_a_device_takes_every_tensor_along(trie: Trie) -> None:
    # The meta device computes no values, and refuses to mix its tensors with those of another one.
    moved = trie.to("meta")
    assert moved.device == torch.device("meta")
    assert trie.device == torch.device("cpu")
    assert {one.device.type for one in moved.arrays().values()} == {"meta"}
    state = moved.root(2)
    for level in range(3):
        state = moved.step(state, torch.zeros(2, dtype=torch.int64, device="meta"), level)
        assert state.device == torch.device("meta")

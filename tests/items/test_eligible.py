"""The trie of a request's eligible items against plain sets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie

Sid = tuple[int, int, int]


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Sid], int, list[set[int]]]:
    """A catalogue, its codebook size, and the blocked items of each request."""
    used = draw(st.integers(1, 4))
    code = st.integers(0, used - 1)
    sids = draw(st.lists(st.tuples(code, code, code), min_size=1, max_size=25, unique=True))
    item = st.integers(0, len(sids) - 1)
    blocked = draw(st.lists(st.sets(item) | st.just(set(range(len(sids)))), min_size=1, max_size=4))
    return sids, used + draw(st.integers(0, 2)), blocked


def restricted(sids: list[Sid], size: int, blocked: list[set[int]]) -> tuple[Trie, EligibleTrie]:
    trie = Trie.from_codes(torch.tensor(sids), size)
    return trie, EligibleTrie(trie, listed(blocked))


def listed(blocked: list[set[int]]) -> torch.Tensor:
    """Item lists filled up with -1, the first item named twice."""
    rows = [[*one, *list(one)[:1]] for one in blocked]
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows], dtype=torch.int64)


@given(requests())
@settings(max_examples=150, deadline=None)
def test_a_mask_allows_the_codes_that_lead_to_an_eligible_item_and_no_others(
    request: tuple[list[Sid], int, list[set[int]]],
) -> None:
    sids, size, blocked = request
    _, eligible = restricted(sids, size, blocked)
    free = [{sid for item, sid in enumerate(sids) if item not in one} for one in blocked]
    # Every prefix of the whole catalogue, whether or not it is still eligible, is asked of every request.
    prefixes: list[tuple[int, ...]] = [()]
    states = eligible.root()
    assert states.tolist() == [[0]] * len(blocked)
    for level in range(3):
        expected = [
            [[any(sid[: level + 1] == (*prefix, code) for sid in own) for code in range(size)] for prefix in prefixes]
            for own in free
        ]
        mask = eligible.mask(states, level)
        assert mask.dtype == torch.bool
        assert mask.tolist() == expected
        # `prefixes` has each prefix of the catalogue once, and `states` the state of each in every request.
        longer = sorted({sid[: level + 1] for sid in sids})
        parents = torch.tensor([prefixes.index(one[:-1]) for one in longer])
        codes = torch.tensor([one[-1] for one in longer]).expand(len(blocked), -1)
        states, prefixes = eligible.step(states[:, parents], codes, level), list(longer)
    assert states.tolist() == [[sids.index(prefix) for prefix in prefixes]] * len(blocked)


@given(requests(), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_whoever_follows_the_masks_arrives_at_an_eligible_item(
    request: tuple[list[Sid], int, list[set[int]]], seed: int
) -> None:
    sids, size, blocked = request
    _, eligible = restricted(sids, size, blocked)
    draw = torch.Generator().manual_seed(seed)
    walks = 30
    states = eligible.root().expand(-1, walks)
    for level in range(3):
        mask = eligible.mask(states, level)
        # A request with nothing left has no code to draw; its walks are dropped below.
        weights = mask.float() + (~mask.any(-1, keepdim=True)).float()
        codes = torch.multinomial(weights.reshape(-1, size), 1, generator=draw).reshape(states.shape)
        states = eligible.step(states, codes, level)
    for own, arrived in zip(blocked, states.tolist(), strict=True):
        left = set(range(len(sids))) - own
        assert not left or set(arrived) <= left


@given(requests())
@settings(max_examples=60, deadline=None)
def test_a_step_is_that_of_the_whole_trie(request: tuple[list[Sid], int, list[set[int]]]) -> None:
    sids, size, blocked = request
    trie, eligible = restricted(sids, size, blocked)
    states = torch.zeros(len(blocked), 1, dtype=torch.int64)
    for level in range(3):
        every = torch.arange(size).repeat(len(blocked), states.shape[1])
        states = states.repeat_interleave(size, 1)
        after = eligible.step(states, every, level)
        assert torch.equal(after, trie.step(states, every, level))
        prefix_exists = len({sid[: level + 1] for sid in sids})
        assert ((after >= 0).sum(1) == prefix_exists).all()
        keep = after[0] >= 0
        states = after[:, keep]


@given(requests())
@settings(max_examples=60, deadline=None)
def test_eligible_counts(request: tuple[list[Sid], int, list[set[int]]]) -> None:
    sids, size, blocked = request
    _, eligible = restricted(sids, size, blocked)
    assert eligible.eligible_counts().tolist() == [len(sids) - len(one) for one in blocked]


SIDS: list[Sid] = [(4, 0, 2), (0, 1, 1), (4, 3, 2), (4, 0, 0)]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_where_all_is_blocked_nothing_is_allowed_and_lost_states_stay_lost(level: int) -> None:
    trie, eligible = restricted(SIDS, 6, [set(range(4)), set()])
    states = torch.tensor([[0, 1, -1], [0, 1, -1]])
    mask = eligible.mask(states, level)
    assert not mask[0].any()
    assert torch.equal(mask[1], trie.mask(states[1], level))
    assert not mask[1, 2].any()
    assert eligible.step(torch.full((2, 1), -1), torch.full((2, 1), 4), level).tolist() == [[-1], [-1]]
    assert eligible.eligible_counts().tolist() == [0, 4]


def test_a_prefix_whose_last_item_is_blocked_is_closed_from_the_first_code() -> None:
    _, eligible = restricted(SIDS, 6, [{1}, {0, 3}])
    assert eligible.mask(eligible.root(), 0).nonzero().tolist() == [[0, 0, 4], [1, 0, 0], [1, 0, 4]]
    under_four = eligible.step(eligible.root(), torch.full((2, 1), 4), 0)
    assert eligible.mask(under_four, 1).nonzero().tolist() == [[0, 0, 0], [0, 0, 3], [1, 0, 3]]


def test_no_requests() -> None:
    eligible = EligibleTrie(Trie.from_codes(torch.tensor(SIDS), 6), torch.zeros(0, 4, dtype=torch.int64))
    assert eligible.mask(eligible.root(), 0).shape == (0, 1, 6)
    assert eligible.eligible_counts().shape == (0,)

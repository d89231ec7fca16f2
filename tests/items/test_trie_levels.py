"""Tries of four levels, and of semantic IDs that items share, against plain sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.artefacts import read_tensors, write_tensors
from conrec.errors import ArtefactError, DataError
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.semantic_ids import SemanticIds
from conrec.items.trie import Trie
from conrec.items.trie_file import load_trie, save_trie

Sid = tuple[int, ...]


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[Sid], tuple[int, ...], bool]:
    """Semantic IDs, codes of each level and whether items may share; of three or four levels."""
    used = draw(st.integers(1, 3))
    code = st.integers(0, used - 1)
    fourth = draw(st.none() | st.integers(1, 5))
    parts = [code, code, code, *([] if fourth is None else [st.integers(0, fourth - 1)])]
    shared = draw(st.booleans())
    sids = draw(st.lists(st.tuples(*parts), min_size=1, max_size=25, unique=not shared))
    size = used + draw(st.integers(0, 2))
    return sids, (size, size, size, *([] if fourth is None else [fourth])), shared


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Sid], tuple[int, ...], bool, list[set[int]], set[int]]:
    """A catalogue, the blocked items of each request, and those that are live."""
    sids, sizes, shared = draw(catalogues())
    item = st.integers(0, len(sids) - 1)
    blocked = draw(st.lists(st.sets(item) | st.just(set(range(len(sids)))), min_size=1, max_size=4))
    return sids, sizes, shared, blocked, draw(st.sets(item, min_size=1) | st.just(set(range(len(sids)))))


def listed(blocked: list[set[int]]) -> torch.Tensor:
    """Item lists filled up with -1, the first item named twice."""
    rows = [[*one, *list(one)[:1]] for one in blocked]
    return torch.tensor([row + [-1] * (max(map(len, rows)) - len(row)) for row in rows], dtype=torch.int64)


@given(catalogues())
@settings(max_examples=150, deadline=None)
def test_every_prefix_agrees_with_a_plain_set(catalogue: tuple[list[Sid], tuple[int, ...], bool]) -> None:
    sids, sizes, shared = catalogue
    trie = Trie.from_codes(torch.tensor(sids), sizes, shared=shared)
    assert (trie.levels, trie.sizes, trie.n_items, trie.n_sids) == (len(sizes), sizes, len(sids), len(set(sids)))
    prefixes: list[Sid] = [()]
    states = trie.root(1)
    for level, size in enumerate(sizes):
        mask = trie.mask(states, level)
        assert mask.tolist() == [
            [any(sid[: level + 1] == (*one, code) for sid in sids) for code in range(size)] for one in prefixes
        ]
        every = torch.arange(-1, size + 1).expand(len(prefixes), -1)
        after = trie.step(states[:, None].expand(-1, size + 2), every, level)
        assert (after[:, 1:-1] >= 0).equal(mask)
        assert (after[:, [0, -1]] == -1).all()
        prefixes = [(*one, code) for row, one in enumerate(prefixes) for code in range(size) if mask[row, code]]
        states = after[after >= 0]
        below = [len({sid for sid in sids if sid[: level + 1] == one}) for one in prefixes]
        assert trie.sids_below(states, level).tolist() == below
        assert trie.path()[:, level].tolist() == [int(states[prefixes.index(sid[: level + 1])]) for sid in sids]
    # The state of a whole semantic ID is the first of its items.
    assert states.tolist() == [sids.index(sid) for sid in prefixes]
    items = torch.arange(len(sids))
    assert trie.first_of(items).tolist() == [sids.index(sid) for sid in sids]
    groups = [[item for item, other in enumerate(sids) if other == sid] for sid in sids]
    found, counts = trie.items_of(items)
    assert counts.tolist() == [len(one) for one in groups]
    assert found.tolist() == [item for one in groups for item in one]


@given(requests())
@settings(max_examples=200, deadline=None)
def test_masks_and_lists_hold_what_is_eligible(
    request: tuple[list[Sid], tuple[int, ...], bool, list[set[int]], set[int]],
) -> None:
    sids, sizes, shared, blocked, live = request
    trie = Trie.from_codes(torch.tensor(sids), sizes, shared=shared)
    pool = LiveItems(trie, torch.tensor([item in live for item in range(len(sids))]))
    eligible = EligibleTrie(pool, listed(blocked))
    free = [sorted(live - one) for one in blocked]
    names = [{sids[item] for item in one} for one in free]
    assert pool.n_live == len({sids[item] for item in live})
    assert eligible.eligible_counts().tolist() == [len(one) for one in names]
    prefixes, states = [()], eligible.root()
    for level, size in enumerate(sizes):
        assert eligible.mask(states, level).tolist() == [
            [[any(sid[: level + 1] == (*one, code) for sid in own) for code in range(size)] for one in prefixes]
            for own in names
        ]
        longer = sorted({sid[: level + 1] for sid in sids})
        parents = torch.tensor([prefixes.index(one[:-1]) for one in longer])
        codes = torch.tensor([one[-1] for one in longer]).expand(len(blocked), -1)
        states, prefixes = eligible.step(states[:, parents], codes, level), list(longer)
    # Lists of all semantic IDs that are eligible, in any order, become lists of items.
    wide = max(1, *map(len, names))
    for k in (1, wide, len(sids)):
        order = [sorted({sids.index(sid) for sid in own}, key=lambda item: item * 7 % 11)[:k] for own in names]
        item = torch.tensor([one + [-1] * (k - len(one)) for one in order])
        score = torch.where(item >= 0, -torch.arange(k).float(), -torch.inf)
        items, scores = eligible.expanded(item, score)
        for row, firsts in enumerate(order):
            expected = [(one, -place) for place, first in enumerate(firsts)
                        for one in free[row] if sids[one] == sids[first]][:k]  # fmt: skip
            assert items[row].tolist() == [one for one, _ in expected] + [-1] * (k - len(expected))
            assert scores[row].tolist() == [float(one) for _, one in expected] + [-np.inf] * (k - len(expected))
    rows = torch.arange(len(blocked)).flip(0)
    chosen = eligible.select(rows)
    assert chosen.eligible_counts().equal(eligible.eligible_counts()[rows])
    again = chosen.expanded(item[rows], score[rows])
    assert again[0].equal(items[rows])
    assert again[1].equal(scores[rows])


SHARED = SemanticIds(
    *[np.asarray([[4, 0, 2], [0, 1, 1], [4, 0, 2], [4, 0, 0]], dtype=np.int32)] * 2,
    codebook_size=8,
    collisions="shared",
)
FOURTH = SemanticIds(
    SHARED.codes, np.column_stack([SHARED.codes, [0, 0, 1, 0]]).astype(np.int32), 8, "extra_level", 2
)  # fmt: skip


@pytest.mark.parametrize("ids", [SHARED, FOURTH], ids=["shared", "extra_level"])
def test_files_hold_levels_and_shared_items(ids: SemanticIds, tmp_path: Path) -> None:
    path = tmp_path / "trie.safetensors"
    trie = Trie.of(ids)
    save_trie(path, trie)
    again = load_trie(path, ids.resolved)
    assert (again.sizes, again.shared, again.n_sids, again.nbytes) == (ids.sizes, ids.shared, trie.n_sids, trie.nbytes)
    assert again.path().equal(trie.path())
    moved = trie.to("meta")
    assert {one.device.type for one in moved.arrays().values()} == {"meta"}
    other = FOURTH if ids is SHARED else SHARED
    with pytest.raises(ArtefactError, match="another table of semantic IDs"):
        load_trie(path, other.resolved)


@pytest.mark.parametrize(
    ("ids", "name", "value", "said"),
    [
        (SHARED, "item_offsets", [0, 1, 2, 2], "offsets of the items"),
        (SHARED, "item_offsets", [0, 1, 4], "offsets of the items"),
        (FOURTH, "fourth_codes", [0, 0, 2, 0], "the fourth codes"),
        (FOURTH, "codebook_size", [8], "not of its levels"),
    ],
)
def test_damaged_files_are_refused(ids: SemanticIds, name: str, value: list[int], said: str, tmp_path: Path) -> None:
    path = tmp_path / "trie.safetensors"
    save_trie(path, Trie.of(ids))
    write_tensors(path, {**read_tensors(path), name: np.asarray(value, dtype=np.int32)})
    with pytest.raises(ArtefactError, match=said):
        load_trie(path, ids.resolved)


def test_codes_beyond_the_fourth_level_are_refused() -> None:
    with pytest.raises(DataError, match=r"item 2 has the codes \[4, 0, 2, 1\].*0 to 7, of the last level to 0"):
        Trie.from_codes(torch.from_numpy(FOURTH.resolved), (8, 8, 8, 1))

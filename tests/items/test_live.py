"""A live catalogue and priors on the trie, against plain sets; and the trie's own numbers and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Array
from conrec.artefacts import read_tensors, write_tensors
from conrec.errors import ArtefactError, DataError
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.items.trie_file import load_trie, save_trie
from tests.items.test_eligible import Sid, listed, requests


def states_of(trie: Trie, prefix: tuple[int, ...]) -> int:
    """The state of a prefix."""
    state = trie.root(1)
    for level, code in enumerate(prefix):
        state = trie.step(state, torch.tensor([code]), level)
    return int(state)


@given(requests(), st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_a_live_catalogue_is_a_trie_of_the_live_items(
    request: tuple[list[Sid], int, list[set[int]]], seed: int
) -> None:
    sids, size, blocked = request
    rng = np.random.default_rng(seed)
    live = rng.random(len(sids)) < 0.6
    prior = rng.normal(size=len(sids)).astype(np.float32)
    trie = Trie.from_codes(torch.tensor(sids), size)
    pool = LiveItems(trie, torch.from_numpy(live), torch.from_numpy(prior))
    eligible = EligibleTrie(pool, listed(blocked))
    assert pool.n_live == int(live.sum())
    gone = [one | set(np.flatnonzero(~live).tolist()) for one in blocked]
    assert eligible.eligible_counts().tolist() == [len(sids) - len(one) for one in gone]
    as_blocked = EligibleTrie(trie, listed(gone))
    for level in range(3):
        prefixes = sorted({sid[:level] for sid in sids})
        states = torch.tensor([[states_of(trie, prefix) for prefix in prefixes]] * len(blocked))
        assert torch.equal(eligible.mask(states, level), as_blocked.mask(states, level))
        longer = sorted({sid[: level + 1] for sid in sids})
        below = torch.tensor([states_of(trie, prefix) for prefix in longer])
        kept = [(sid, float(prior[item])) for item, sid in enumerate(sids) if live[item]]
        best = [max((value for sid, value in kept if sid[: level + 1] == one), default=-np.inf) for one in longer]
        assert pool.prior(below, level).tolist() == pytest.approx(best)
    rows = torch.arange(len(blocked)).flip(0)
    assert eligible.select(rows).eligible_counts().tolist() == eligible.eligible_counts().flip(0).tolist()


@given(requests())
@settings(max_examples=60, deadline=None)
def test_paths_counts_and_children(request: tuple[list[Sid], int, list[set[int]]]) -> None:
    sids, size, _ = request
    trie = Trie.from_codes(torch.tensor(sids), size)
    path = trie.path()
    for item, sid in enumerate(sids):
        assert path[item].tolist() == [states_of(trie, sid[: level + 1]) for level in range(3)]
    for level in (0, 1):
        below = trie.sids_below(torch.arange(trie.n_nodes(level)), level)
        assert trie.n_nodes(level) == len({sid[: level + 1] for sid in sids})
        assert torch.equal(below, torch.bincount(path[:, level]))
        children = trie.children(torch.arange(trie.n_nodes(level)), level + 1)
        for node in range(trie.n_nodes(level)):
            used = children.allowed[node]
            codes, states = children.code[node][used].tolist(), children.state[node][used].tolist()
            own = [item for item in range(len(sids)) if path[item, level] == node]
            assert codes == sorted({sids[item][level + 1] for item in own})
            assert sorted(states) == sorted(set(path[own, level + 1].tolist()))


@pytest.fixture
def trie() -> Trie:
    return Trie.from_codes(torch.tensor([[4, 0, 2], [0, 1, 1], [4, 3, 2], [4, 0, 0]]), 8)


def test_a_saved_trie_is_the_same_trie(trie: Trie, tmp_path: Path) -> None:
    save_trie(tmp_path / "trie.safetensors", trie)
    again = load_trie(tmp_path / "trie.safetensors", trie.codes.numpy())
    assert (again.codebook_size, again.n_items, again.nbytes) == (8, 4, trie.nbytes)
    assert torch.equal(again.path(), trie.path())
    for level in range(3):
        states = torch.arange(-1, trie.n_nodes(level - 1) if level else 1)
        assert torch.equal(again.mask(states, level), trie.mask(states, level))


def test_a_trie_of_another_table_or_a_damaged_one_is_refused(trie: Trie, tmp_path: Path) -> None:
    path = tmp_path / "trie.safetensors"
    save_trie(path, trie)
    moved = trie.codes.numpy().copy()
    moved[2, 2] = 5
    with pytest.raises(ArtefactError, match="another table of semantic IDs"):
        load_trie(path, moved)
    with pytest.raises(ArtefactError, match="another table of semantic IDs"):
        load_trie(path, moved[:3])
    tensors = read_tensors(path)
    del tensors["item"]
    write_tensors(path, tensors)
    with pytest.raises(ArtefactError, match=r"holds .*expected.*item"):
        load_trie(path, trie.codes.numpy())
    with pytest.raises(ArtefactError):
        load_trie(tmp_path / "nowhere.safetensors", trie.codes.numpy())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("item", np.asarray([0, 1, 2, 2]), "not those of the table"),
        ("second_offsets", np.asarray([0, 2, 2]), "offsets of the second"),
        ("third_codes", np.asarray([0, 9, 1, 1]), "the third codes"),
        ("first", np.asarray([0, 1]), "2 first codes of 8"),
    ],
)
def test_a_file_with_other_numbers_is_refused(trie: Trie, tmp_path: Path, name: str, value: Array, said: str) -> None:
    path = tmp_path / "trie.safetensors"
    save_trie(path, trie)
    write_tensors(path, {**read_tensors(path), name: value.astype(np.int32)})
    with pytest.raises(ArtefactError, match=said):
        load_trie(path, trie.codes.numpy())


def test_priors_that_are_none_are_refused_and_never_is_not_live(trie: Trie) -> None:
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(DataError, match=r"live prior.*NaN or \+inf"):
            LiveItems(trie, prior=torch.tensor([0.0, wrong, 0.0, 0.0]))
    pool = LiveItems(trie, prior=torch.tensor([0.0, -torch.inf, 1.0, 2.0]))
    assert pool.n_live == 3
    assert not EligibleTrie(pool, torch.full((1, 0), -1)).mask(trie.root(1)[None], 0)[0, 0, 0]
    with pytest.raises(DataError, match=r"3 values.*one for each of 4 items"):
        LiveItems(trie, torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match=r"item 4.*from 0 to 3"):
        EligibleTrie(trie, torch.tensor([[-1, 4]]))


def test_many_items_take_few_bytes_and_are_all_found() -> None:
    """Clustered codes of a large codebook, as real ones are: some prefixes full, most thin."""
    rng = np.random.default_rng(0)
    key = np.unique((rng.zipf(1.3, 60_000) * 7919 % 2048 * 2048 + rng.zipf(1.5, 60_000) % 2048) * 2048
                    + rng.integers(0, 2048, 60_000))  # fmt: skip
    codes = torch.from_numpy(rng.permutation(np.stack([key // 2048**2, key // 2048 % 2048, key % 2048], 1)))
    trie = Trie.from_codes(codes, 2048)
    assert trie.nbytes <= 40 * len(codes) + 4 * (2048 + 8)
    state = trie.root(len(codes))
    for level in range(3):
        state = trie.step(state, codes[:, level], level)
    assert torch.equal(state, torch.arange(len(codes)))
    absent = torch.from_numpy(rng.integers(0, 2048, (5000, 3)))
    known = set(map(tuple, codes.tolist()))
    state = trie.root(5000)
    for level in range(3):
        state = trie.step(state, absent[:, level], level)
    assert [one >= 0 for one in state.tolist()] == [tuple(row) in known for row in absent.tolist()]

"""Search and candidate scores against scoring every item, one history and one code at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conrec.baselines.generative.encoder_decoder import EncoderDecoder
from conrec.baselines.generative.examples import inputs
from conrec.baselines.generative.tokens import PAD, Tokens
from conrec.baselines.generative.trie_search import CodeLogits, DecoderTree, log_probabilities, popularity
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.generation import search_tree
from conrec.settings.baselines.generative import TigerConfig

SETTINGS = TigerConfig(
    hidden_size=16,
    heads=2,
    layers=1,
    feed_forward=24,
    dropout=0.0,
    user_tokens=3,
    initial_scale=1.0,
    encoder="bidirectional",
)
ROWS = [[3, 7, 9, 11, 6, 10], [2, 8, 9, 11], [3]]
HISTORIES = inputs(ROWS)
BLOCKED = torch.tensor([[0, 3, 9, 17], [5, -1, -1, -1], [-1, -1, -1, -1]])


def world(levels: int) -> tuple[CodeLogits, Trie]:
    sizes = (4, 3, 5, 2)[:levels]
    random = np.random.default_rng(levels)
    every = np.stack(np.unravel_index(random.permutation(int(np.prod(sizes))), sizes), axis=1)
    codes = every[: 12 if levels == 2 else 30].astype(np.int32)
    tokens = Tokens(codes, sizes, 3)
    torch.manual_seed(5)
    network = EncoderDecoder(tokens.size, SETTINGS).double().eval().requires_grad_(False)
    return CodeLogits(network, tokens), Trie.from_codes(torch.from_numpy(codes), sizes)


def plain_score(head: CodeLogits, trie: Trie, row: int, item: int, eligible: set[tuple[int, ...]]) -> float:
    """Log-probability of an item by transformers' own forward pass, over codes that lead to an eligible item."""
    codes = tuple(trie.codes[item].tolist())
    total = 0.0
    for level, code in enumerate(codes):
        written = [PAD, *(head.code_offset[one] + codes[one] for one in range(level))]
        history = inputs([ROWS[row]])
        logits = head.network.t5(input_ids=history, decoder_input_ids=torch.tensor([written])).logits[0, -1]
        first = head.code_offset[level]
        allowed = sorted({one[level] for one in eligible if one[:level] == codes[:level]})
        total += float(logits[first + code] - torch.logsumexp(logits[first:][allowed], 0))
    return total


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_list_is_that_of_scoring_everything(levels: int) -> None:
    head, trie = world(levels)
    eligible_trie = EligibleTrie(trie, BLOCKED.masked_fill(trie.n_items <= BLOCKED, -1))
    for k in (5, trie.n_items + 3):
        beams = search_tree(head, DecoderTree(head.network, head.network.encode(HISTORIES)), eligible_trie, k, 2)
        assert beams.proved.all()
        for row in range(3):
            free = [item for item in range(trie.n_items) if item not in BLOCKED[row].tolist()]
            names = {tuple(trie.codes[item].tolist()) for item in free}
            scores = {item: plain_score(head, trie, row, item, names) for item in free}
            best = sorted(free, key=lambda item: -scores[item])[:k]
            assert beams.item[row].tolist() == best + [-1] * (k - len(best))
            expected = [scores[item] for item in best]
            np.testing.assert_allclose(beams.score[row, : len(best)], expected, rtol=0, atol=1e-5)
    assert beams.score.dtype == torch.float64


def test_plain_beams_find_whole_lists_of_distinct_items() -> None:
    head, trie = world(3)
    tree = DecoderTree(head.network, head.network.encode(HISTORIES))
    beams = search_tree(head, tree, EligibleTrie(trie, BLOCKED), 26, 4, certified=False)
    assert (beams.item >= 0).all()
    for row in range(3):
        assert len(set(beams.item[row].tolist())) == 26
        assert not set(beams.item[row].tolist()) & set(BLOCKED[row].tolist())


def test_candidates_are_scored_by_teacher_forcing() -> None:
    head, trie = world(3)
    items = torch.tensor([[0, 29, 7, 7], [1, 2, 3, 4], [28, 11, 5, 0]])
    every = EligibleTrie(trie, torch.empty(3, 0, dtype=torch.int64))
    written = head.tokens.of_items_on(items, trie.codes)
    hidden = head.network.decode(head.network.encode(HISTORIES), written[..., :-1])
    found = log_probabilities(head, every, hidden, items).sum(-1)
    names = {tuple(one) for one in trie.codes.tolist()}
    expected = [[plain_score(head, trie, row, item, names) for item in items[row].tolist()] for row in range(3)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_tree_lengthens_whatever_was_kept() -> None:
    head, _ = world(4)
    memory = head.network.encode(HISTORIES)
    tree = DecoderTree(head.network, memory)
    none = torch.full((3, 2), -1)
    first = torch.tensor([[5, 6]]).expand(3, -1)
    second = torch.tensor([[9, 10, 11]]).expand(3, -1)
    hidden = tree.extend((first, none), (second, torch.tensor([[0, 1, 1]]).expand(3, -1)))
    assert hidden.shape == (3, 5, 16)
    tree.extend((first, none), keep=False)
    later = tree.extend((first, none))  # nodes 5 and 6, shorter than those before them
    torch.testing.assert_close(later, hidden[:, :2])
    tree.select(torch.tensor([2, 0]))
    third = tree.extend((torch.tensor([[12], [13]]), torch.tensor([[3], [4]])))
    one = torch.tensor([[[6, 10, 12]], [[6, 11, 13]]])
    plain = head.network.decode(memory.select(torch.tensor([2, 0])), one)[:, 0, -1]
    torch.testing.assert_close(third[:, 0], plain)


@pytest.mark.parametrize("shared", [False, True])
def test_the_bias_of_a_trie_is_the_popularity_of_its_items(shared: bool) -> None:
    head, trie = world(3)
    if shared:
        trie = Trie.from_codes(torch.cat([trie.codes, trie.codes[:7]]), trie.sizes, shared=True)
    counts = torch.arange(trie.n_items).double()
    network = EncoderDecoder(head.tokens.size, SETTINGS, [trie.n_nodes(level) for level in range(3)]).double().eval()
    with torch.no_grad():
        network.t5.shared.weight.zero_()
        for one, start in zip(network.bias, popularity(trie, counts), strict=True):
            one.copy_(start)
    items = torch.arange(30)[None]
    hidden = network.decode(network.encode(HISTORIES[:1]), torch.zeros(1, 30, 2, dtype=torch.int64))
    every = EligibleTrie(trie, torch.empty(1, 0, dtype=torch.int64))
    found = log_probabilities(CodeLogits(network, head.tokens), every, hidden, items).sum(-1).exp()[0]
    expected = counts[:30] + 1
    if shared:
        expected[:7] += counts[30:] + 1
    torch.testing.assert_close(found, expected / expected.sum())

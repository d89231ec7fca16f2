"""Titles read as a tree behind a prompt, against one row of the model for each of them."""

from __future__ import annotations

import pytest
import torch

from conrec.baselines.language.title_tree import last_states, log_probabilities_of, merged, token_logits
from conrec.llm.tree import TokenTree
from tests.llm.world import PROMPTS, backbone

SEQUENCES = [
    [[20, 21, 22], [20, 21], [23], []],
    [[30, 31, 32, 33], [30, 31, 34]],
    [[20, 21, 22], [40, 21, 22], [20, 21, 22]],
]
END = 19


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return backbone()


@torch.no_grad()
def plain(model, prompt, sequence):
    """Hidden states of the model's own pass over one prompt and one sequence, from the prompt's last token on."""
    ids = torch.tensor([[*prompt, *sequence]])
    return model.model.get_decoder()(input_ids=ids).last_hidden_state[0, len(prompt) - 1 :]


def test_equal_beginnings_are_one_node():
    branches = merged(SEQUENCES)
    assert [token.shape for token, _ in branches.layers] == [(3, 2), (3, 2), (3, 2), (3, 1)]
    first, second = branches.layers[0], branches.layers[1]
    assert first[0].tolist() == [[20, 23], [30, 0], [20, 40]]
    assert (first[1] == -1).all()
    assert second[0].tolist() == [[21, 0], [31, 0], [21, 21]]
    assert second[1][2].tolist() == [0, 1]
    assert branches.node[0].tolist() == [[0, 2, 4, -1], [0, 2, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]]
    assert branches.node[2, 0].tolist() == branches.node[2, 2].tolist()


def test_nothing_is_a_tree_without_layers(model):
    branches = merged([[[], []]])
    assert branches.layers == ()
    tree = TokenTree(model, PROMPTS[:1])
    states = last_states(tree, branches)
    assert torch.equal(states[0, 0], tree.root[0])


def test_last_states_are_those_of_a_row_each(model):
    with torch.no_grad():
        states = last_states(TokenTree(model, PROMPTS), merged(SEQUENCES))
    for row, some in enumerate(SEQUENCES):
        for number, sequence in enumerate(some):
            torch.testing.assert_close(states[row, number], plain(model, PROMPTS[row], sequence)[-1], atol=1e-5, rtol=0)


def test_log_probabilities_are_those_of_a_row_each(model):
    branches = merged(SEQUENCES)
    with torch.no_grad():
        last = torch.full(branches.node.shape[:2], END)
        found = log_probabilities_of(model, TokenTree(model, PROMPTS), branches, last)
        for row, some in enumerate(SEQUENCES):
            for number, sequence in enumerate(some):
                logits = model.model.lm_head(plain(model, PROMPTS[row], sequence)).log_softmax(-1)
                expected = sum(float(logits[place, token]) for place, token in enumerate([*sequence, END]))
                assert float(found[row, number]) == pytest.approx(expected, abs=1e-4)


def test_one_row_serves_many_prompts(model):
    with torch.no_grad():
        one = merged([SEQUENCES[0]]).rows(3)
        many = merged([SEQUENCES[0]] * 3)
        tree = TokenTree(model, PROMPTS)
        assert torch.equal(last_states(tree, one), last_states(tree, many))


def test_logits_of_some_tokens_are_those_of_all(model):
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(token_logits(model, hidden, (7, 3)), token_logits(model, hidden)[..., [7, 3]])

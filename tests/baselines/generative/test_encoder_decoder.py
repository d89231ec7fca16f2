"""Our way through T5 against transformers' own forward pass, and what a causal encoder does for many targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conrec.baselines.generative.encoder_decoder import EncoderDecoder
from conrec.baselines.generative.examples import Batch, Example, batch_of, inputs, loss_of
from conrec.baselines.generative.tokens import END, PAD, Tokens
from conrec.items.trie import Trie
from conrec.settings.baselines.generative import TigerConfig

SMALL = TigerConfig(
    hidden_size=16,
    heads=2,
    layers=2,
    feed_forward=24,
    dropout=0.0,
    user_tokens=5,
    initial_scale=1.0,
    encoder="bidirectional",
)
CODES = np.stack([np.arange(12) % 3, np.arange(12) // 3 % 2, np.arange(12) // 6], axis=1).astype(np.int32)
TOKENS = Tokens(CODES, (3, 2, 2), 5)
ROWS = [[3, 8, 10, 12, 7, 11, 13], [2, 9, 10, 13], [3]]
HISTORIES = inputs(ROWS)
WRITTEN = torch.tensor([[[7, 10]], [[8, 11]], [[9, 10]]])
CPU = torch.device("cpu")


def _example(user_id: str, items: list[int], first: int) -> Example:
    """Dislikes of which each from the ``first`` on is a target."""
    return Example(user_id, np.array(items), np.arange(len(items)) >= first)


def network(**changes: object) -> EncoderDecoder:
    torch.manual_seed(3)
    return EncoderDecoder(TOKENS.size, SMALL.model_copy(update=changes)).double()


def test_it_computes_what_transformers_computes() -> None:
    model = network().eval()
    hidden = model.decode(model.encode(HISTORIES), WRITTEN)[:, 0]
    logits = hidden @ model.t5.shared.weight.T
    start = torch.nn.functional.pad(WRITTEN[:, 0], (1, 0), value=PAD)
    own = model.t5(input_ids=HISTORIES, attention_mask=(HISTORIES != PAD).long(), decoder_input_ids=start).logits
    # Its norms are computed in single precision.
    torch.testing.assert_close(logits, own, rtol=0, atol=1e-5)


def test_the_loss_over_the_vocabulary_is_transformers_own() -> None:
    model = network(loss="vocabulary").train()  # without dropout
    examples = [
        _example("a", [4, 2, 7], 2),
        _example("b", [1], 0),
        _example("c", [3, 11, 0, 5], 3),
    ]
    batch = batch_of(examples, TOKENS, False, CPU)
    trie = Trie.from_codes(torch.from_numpy(CODES), TOKENS.sizes)
    found = loss_of(model, TOKENS, trie, batch)
    labels = torch.from_numpy(TOKENS.of_items(np.array([7, 1, 5])))
    own = model.t5(input_ids=batch.tokens, attention_mask=(batch.tokens != PAD).long(), labels=labels).loss
    assert found.item() == pytest.approx(own.item() * labels.numel(), rel=1e-5)
    found.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())


def test_the_loss_over_the_trie_is_that_of_a_softmax_over_the_catalogue() -> None:
    codes = CODES[:9]  # not every combination exists
    tokens = Tokens(codes, (3, 2, 2), 5)
    trie = Trie.from_codes(torch.from_numpy(codes), tokens.sizes)
    model = network().eval()
    losses = []
    for target in range(9):
        batch = batch_of([_example("a", [4, 2, target], 2)], tokens, False, CPU)
        losses.append(loss_of(model, tokens, trie, batch).item())
    assert np.exp(-np.array(losses)).sum() == pytest.approx(1.0, abs=1e-9)
    assert np.std(losses) > 0


def test_an_item_is_a_token_for_each_code_behind_words_and_user() -> None:
    tokens = Tokens(CODES, (3, 2, 2), 5, words=4)
    row = tokens.of_history("somebody", np.array([5, 0]))
    assert row[:4] == [2, 3, 4, 5]
    assert 6 <= row[4] < 11
    assert row[5:] == [11 + 2, 14 + 1, 16 + 0, 11, 14, 16]
    assert tokens.size == 18
    assert tokens.before == 5
    assert tokens.of_history("somebody", np.array([], dtype=int)) == row[:5]
    nobody = Tokens(CODES, (3, 2, 2), 0)
    assert nobody.of_history("somebody", np.array([], dtype=int)) == []
    assert inputs([[], [7]]).tolist() == [[PAD, END], [7, END]]
    assert len({tokens.of_history(f"user {one}", np.array([], dtype=int))[4] for one in range(60)}) == 5


@pytest.mark.parametrize("encoder", ["bidirectional", "causal"])
def test_padding_and_company_change_nothing(encoder: str) -> None:
    model = network(encoder=encoder).eval()
    written = torch.tensor([[[7, 10], [8, 11]]]).expand(3, -1, -1)
    together = model.decode(model.encode(HISTORIES), written)
    for row, tokens in enumerate(ROWS):
        alone = model.decode(model.encode(inputs([tokens])), written[:1, 1:])
        torch.testing.assert_close(alone[0, 0], together[row, 1], rtol=0, atol=1e-12)


def test_a_causal_encoder_serves_all_targets_of_a_stretch() -> None:
    causal, whole = network(encoder="causal").eval(), network().eval()
    written = torch.tensor([[[7, 10], [8, 11], [9, 10]]])
    stretches = torch.tensor([ROWS[0], [2, 9, 10, 13, PAD, PAD, PAD]])
    at_once = causal.decode(causal.encode_stretches(stretches, torch.tensor([1, 4, 7])), written.expand(2, -1, -1))
    for row in range(2):
        for place, length in enumerate([1, 4, 7][: 3 - row]):
            own = causal.encode(inputs([ROWS[row][:length]]))
            torch.testing.assert_close(causal.decode(own, written[:, [place]])[0, 0], at_once[row, place])
    differ = whole.decode(whole.encode(HISTORIES[:1]), written)
    assert not torch.allclose(differ[0, 2], at_once[0, 2])


def test_batches_say_what_stands_before_each_target() -> None:
    examples = [_example("a", [4, 2, 7], 0), _example("b", [1, 3], 1)]
    batch: Batch = batch_of(examples, TOKENS, True, CPU)
    assert batch.target.tolist() == [[4, 2, 7], [-1, 3, -1]]
    assert batch.places is not None
    assert batch.places.tolist() == [1, 4, 7]
    assert batch.tokens.tolist() == [
        TOKENS.of_history("a", np.array([4, 2])),
        [*TOKENS.of_history("b", np.array([1])), PAD, PAD, PAD],
    ]
    assert batch.targets == 4
    each = batch_of([_example("a", [4, 2, 7], 2), _example("b", [1], 0)], TOKENS, False, CPU)
    assert each.target.tolist() == [[7], [1]]
    assert each.places is None
    assert each.tokens[1].tolist() == [PAD] * 6 + [*TOKENS.of_history("b", np.array([], dtype=int)), END]

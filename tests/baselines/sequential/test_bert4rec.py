"""BERT4Rec: what is masked and seen, the contract, and that it learns from both sides of a mask."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from conrec.baselines.sequences.histories import Histories
from conrec.baselines.sequential.bert4rec import Bert4RecNetwork, masked, showings_of
from conrec.settings.baselines.sequential import Bert4RecConfig
from tests.baselines.conformance import TrainedConformance
from tests.baselines.worlds import CHAINS_END, chains, follows_chains

SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 3, "batch_size": 8,
    "weight_decay": 0.01,
}  # fmt: skip


class TestBert4Rec(TrainedConformance):
    row = "bert4rec"
    small: ClassVar[dict[str, Any]] = SMALL


_fit = TestBert4Rec().fit


def _network() -> Bert4RecNetwork:
    torch.manual_seed(0)
    return Bert4RecNetwork(10, Bert4RecConfig(**SMALL)).double().eval().requires_grad_(False)


def test_masks_hide_their_share_and_targets_are_what_they_hide() -> None:
    items, every, random = np.arange(10, 30), np.ones(20, dtype=bool), np.random.default_rng(0)
    hidden = 0
    for _ in range(400):
        shown = masked(items, every, 100, 0.0, 0.3, random)
        assert shown.tokens[0] == 100
        under = shown.targets >= 0
        assert under.any()
        assert (shown.tokens[under] == 101).all()
        np.testing.assert_array_equal(np.where(under, shown.targets, shown.tokens)[1:], items)
        hidden += int(under.sum())
    assert hidden / (400 * 20) == pytest.approx(0.3, abs=0.02)
    assert (masked(np.array([4]), every[:1], 100, 0.0, 1e-9, random).targets == [-1, 4]).all()


def test_at_the_end_one_item_is_masked_and_any_may_be_the_last() -> None:
    items, every, random = np.array([4, 5, 6]), np.ones(3, dtype=bool), np.random.default_rng(0)
    ends = set()
    for _ in range(100):
        shown = masked(items, every, 100, 1.0, 0.5, random)
        assert shown.targets[-1] == items[len(shown) - 2]
        assert shown.tokens.tolist() == [100, *items[: len(shown) - 2].tolist(), 101]
        assert (shown.targets[:-1] == -1).all()
        ends.add(len(shown))
    assert ends == {2, 3, 4}
    first = np.array([True, False, False])
    assert len(masked(items, first, 100, 1.0, 0.5, random)) == 2


def test_each_showing_is_masked_anew() -> None:
    log, settings = chains().before(CHAINS_END), Bert4RecConfig(showings=3)
    once, thrice = showings_of(log, settings.model_copy(update={"showings": 1}), 0, 1), showings_of(log, settings, 0, 1)
    assert len(thrice) == 3 * len(once)
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(once, thrice, strict=False))
    another = [np.array_equal(a.targets, b.targets) for a, b in zip(once, thrice[len(once) :], strict=False)]
    assert np.mean(another) < 0.5


def test_both_sides_are_seen_and_padding_is_not() -> None:
    network = _network()
    tokens, length = torch.tensor([[10, 3, 11, 4, 7, 7]]), torch.tensor([4])
    before = network.states(tokens, length)
    padding = network.states(torch.tensor([[10, 3, 11, 4, 1, 2]]), length)
    torch.testing.assert_close(before[:, :4], padding[:, :4])
    later = network.states(torch.tensor([[10, 3, 11, 5, 7, 7]]), length)
    assert not torch.allclose(before[:, 2], later[:, 2])
    torch.testing.assert_close(before[:, :4], network.states(tokens[:, :4], length))


def test_the_mask_behind_the_last_event_stands_where_it_stood_in_training() -> None:
    network = _network()
    history = torch.tensor([[3, 4, 5]])
    tokens = torch.tensor([[10, 3, 4, 5, 11]])
    trained = network.logits(network.states(tokens, torch.tensor([5]))[:, 4])
    zero = torch.zeros_like(history)
    asked = Histories(torch.tensor([0]), torch.tensor([9]), history, zero, zero, torch.tensor([3]))
    torch.testing.assert_close(network.answer(asked), trained)


def test_it_learns_what_follows_what() -> None:
    log = chains()
    model = _fit(log, CHAINS_END, epochs=40, batch_size=16, learning_rate=1e-2)
    assert follows_chains(model, log) > 0.9


def test_it_fills_a_gap_from_what_comes_behind_it() -> None:
    log = chains()
    model = _fit(log, CHAINS_END, epochs=70, hidden_size=32, batch_size=16, learning_rate=1e-2, last_share=0.0)
    network = model.network
    start, mask = log.n_items, log.n_items + 1
    right = 0
    for item in range(log.n_items):
        behind = [(item + step) % log.n_items for step in range(1, 7)]
        tokens = torch.tensor([[start, mask, *behind]])
        scores = network.logits(network.states(tokens, torch.tensor([8]))[:, 1])
        right += int(scores.argmax()) == item
    assert right / log.n_items > 0.6  # by chance, or from what stands before the gap: 0.05

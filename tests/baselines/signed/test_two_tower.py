"""The two-tower row: the contract, and that towers over masked-out events are towers over events taken apart."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from conrec.baselines.signed.two_tower import TwoTowerNetwork, content_of
from conrec.settings.baselines.signed import TwoTowerConfig
from tests.baselines.signed.conformance import SignedConformance
from tests.baselines.worlds import space_of
from tests.conformance import CUT, small_log

SMALL = {"hidden_size": 16, "max_length": 10, "epochs": 2, "batch_size": 8, "weight_decay": 0.01, "dropout": 0.1}


class TestTwoTower(SignedConformance):
    row = "two-tower"
    small: ClassVar[dict[str, Any]] = SMALL
    learns: ClassVar[dict[str, Any]] = {"epochs": 25, "learning_rate": 1e-2, "dropout": 0.0, "batch_size": 16}


def test_each_state_is_that_of_the_events_so_far_read_sign_by_sign() -> None:
    torch.manual_seed(0)
    network = TwoTowerNetwork(small_log(items=9), torch.randn(9, 5), TwoTowerConfig(**SMALL)).double().eval()
    item = torch.tensor([[3, 1, 4, 1, 5], [2, 6, -1, -1, -1]])
    feedback = torch.tensor([[1, 0, -1, 0, 1], [0, -1, 0, 0, 0]])
    states = network.states(item, feedback)
    vectors = network.items()
    for row, length in enumerate([5, 2]):
        for seen in range(length + 1):
            of = {}
            for sign, tower in ((-1, network.dislikes), (0, network.neutral), (1, network.likes)):
                places = (feedback[row, :seen] == sign).nonzero()[:, 0]
                of[sign] = tower(vectors[item[row, places]][None], places[None])[0]
            asked = [
                ask(of[sign][-1:][None], of[0][None], torch.ones(1, 1, len(of[0]), dtype=torch.bool))[0, 0]
                for sign, ask in ((-1, network.dislikes_ask), (1, network.likes_ask))
            ]
            together = torch.cat([of[-1][-1], of[0][-1], of[1][-1], *asked])
            torch.testing.assert_close(states[row, seen], network.norm(network.user(F.gelu(network.hidden(together)))))


def test_a_score_is_an_inner_product_with_an_item_its_popularity_and_its_bias() -> None:
    torch.manual_seed(0)
    log = small_log(items=9)
    network = TwoTowerNetwork(log, torch.randn(9, 5), TwoTowerConfig(**SMALL)).eval()
    torch.nn.init.normal_(network.bias)
    user = torch.randn(2, 16)
    scores = network.logits(user)
    for row in range(2):
        for item in range(9):
            popularity = math.log(1 + int((log.feedback[log.item == item] == -1).sum()))
            expected = user[row] @ network.items()[item] + popularity + network.bias[item]
            torch.testing.assert_close(scores[row, item], expected)


def test_content_is_shares_of_categories_and_the_embedding() -> None:
    log = small_log()
    kinds = [[["a", "b"], ["b"], []][item % 3] for item in range(log.n_items)]
    embeddings = np.random.default_rng(0).normal(size=(log.n_items, 4)).astype(np.float32)
    content = content_of(space_of(log, CUT, categories=kinds, embeddings=embeddings)).numpy()
    assert content.shape == (log.n_items, 6)
    assert content[:3, :2].tolist() == [[0.5, 0.5], [0.0, 1.0], [0.0, 0.0]]
    direction = content[:, 2:] - content[0, 2:]
    scale = np.linalg.norm(direction[1]) / np.linalg.norm(embeddings[1] - embeddings[0])
    np.testing.assert_allclose(direction, scale * (embeddings - embeddings[0]), atol=1e-5)


def test_items_of_which_nothing_is_known_have_vectors_of_their_own() -> None:
    log = small_log()
    nothing = np.zeros((log.n_items, 4), dtype=np.float32)
    assert content_of(space_of(log, CUT, categories=[[]] * log.n_items, embeddings=nothing)).shape == (log.n_items, 0)

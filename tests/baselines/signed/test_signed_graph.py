"""The signed graph row: the contract, and its users, scores, loss and contrast against plain loops."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from conrec.baselines.signed.lessons import lessons_of_next, together
from conrec.baselines.signed.losses import softmax_loss
from conrec.baselines.signed.signed_graph import SignedGraphNetwork, contrast
from conrec.settings.baselines.signed import SignedGraphConfig
from tests.baselines.signed.conformance import SignedConformance
from tests.conformance import CUT, small_log

SMALL = {"hidden_size": 16, "max_length": 50, "epochs": 2, "batch_size": 8, "weight_decay": 0.01, "folds": 2}


class TestSignedGraph(SignedConformance):
    row = "signed-graph"
    small: ClassVar[dict[str, Any]] = SMALL
    learns: ClassVar[dict[str, Any]] = {
        "epochs": 30,
        "learning_rate": 2e-2,
        "dropout": 0.0,
        "batch_size": 32,
        "hidden_size": 32,
    }
    right = 0.7  # it sums a history up, whatever the order: older probes still speak


def _network(**changes: Any) -> SignedGraphNetwork:
    torch.manual_seed(0)
    network = SignedGraphNetwork(small_log().before(CUT), SignedGraphConfig(**{**SMALL, **changes})).double()
    for one in network.parameters():
        torch.nn.init.normal_(one)
    return network


@pytest.mark.parametrize("damping", [0.5, 1.0])
def test_a_user_is_what_his_events_sum_to_and_a_score_disinterest_less_interest(damping: float) -> None:
    network = _network(damping=damping).eval()
    log = small_log().before(CUT)
    item, feedback = (
        torch.tensor([[3, 1, 4, 1, 0], [2, 6, -1, -1, -1]]),
        torch.tensor([[1, 0, -1, 1, -1], [0, 1, 0, 0, 0]]),
    )
    states = network.states(item, feedback)
    scores = network.logits(states[:, -1])
    tables = {sign: network.graphs[sign].convolved(network.vectors(sign), 1) for sign in (-1, 0, 1)}
    users = {
        (sign, one): len(set(log.user[(log.item == one) & (log.feedback == sign)].tolist()))
        for sign in (-1, 0, 1)
        for one in range(log.n_items)
    }
    for row, length in enumerate([5, 2]):
        for seen in range(item.shape[1] + 1):
            own: dict[int, Tensor] = {}
            for sign in (-1, 0, 1):
                mean = np.mean([max(1, users[sign, one]) for one in range(log.n_items)])
                events = [
                    one for one, mark in zip(item[row].tolist(), feedback[row].tolist(), strict=True) if one >= 0
                ][: min(seen, length)]
                mine = [one for place, one in enumerate(events) if int(feedback[row, place]) == sign]
                total = sum(
                    (math.sqrt(mean / max(1, users[sign, one])) * tables[sign][one] for one in mine),
                    torch.zeros(16, dtype=torch.float64),
                )
                own[sign] = total / max(1, len(mine)) ** damping
            disinterest = own[-1] + network.from_likes(own[1]) + network.from_neutral(own[0])
            torch.testing.assert_close(states[row, seen], torch.cat([disinterest, own[1]]))
        for one in range(log.n_items):
            popularity = network.bias[one] + network.prior[one]
            expected = disinterest @ tables[-1][one] - network.share * (own[1] @ tables[1][one]) + popularity
            torch.testing.assert_close(scores[row, one], expected)


def test_a_batch_is_of_one_part_and_asked_on_the_graph_of_the_others() -> None:
    network = _network(folds=3)
    log = small_log().before(CUT)
    lessons = lessons_of_next(log, 50)
    batches = network.batches(lessons, 2, np.random.default_rng(0))
    assert sorted(one.user for batch in batches for one in batch) == [one.user for one in lessons]
    assert len({int(network.part_of[one.user]) for one in lessons}) > 1
    for batch in batches:
        part = {int(network.part_of[one.user]) for one in batch}
        assert len(part) == 1
        for sign, graph in network.without_part[part.pop()].items():
            others = {(int(u), int(i)) for u, i, f in zip(log.user, log.item, log.feedback, strict=True) if f == sign}
            kept = {one for one in others if network.part_of[one[0]] != network.part_of[batch[0].user]}
            assert set(zip(graph.user.tolist(), graph.item.tolist(), strict=True)) == kept


def test_its_loss_is_a_weighted_sum() -> None:
    network = _network(like_weight=0.5, contrast_weight=0.25, dropout=0.0)
    network.batches(lessons := lessons_of_next(small_log().before(CUT), 50), 4, np.random.default_rng(0))
    asked = together(lessons[:1])
    torch.manual_seed(3)
    found = network.loss(asked)
    graphs = network.without_part[int(network.part_of[lessons[0].user])]
    tables = network.tables(graphs)
    states = network.users(graphs, tables, asked.item, asked.feedback)[asked.row, asked.seen]
    torch.manual_seed(3)
    views = [network.distorted(graphs[-1])[asked.dislikes.item.unique()] for _ in range(2)]
    liked = states[:, 16:] @ tables[1].T + network.like_bias
    expected = (
        softmax_loss(network.scores(tables, states), asked.dislikes)
        + 0.5 * softmax_loss(liked, asked.likes)
        + 0.25 * len(asked) * contrast(views[0], views[1], network.settings.temperature)
    )
    torch.testing.assert_close(found, expected)


def test_contrast() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    expected = 0.0
    for row in range(4):
        near = [math.exp(F.cosine_similarity(one[row], other[column], dim=0).item() / 0.2) for column in range(4)]
        expected -= math.log(near[row] / sum(near)) / 4
    assert contrast(one, other, 0.2).item() == pytest.approx(expected)
    assert contrast(one, one, 0.01).item() < 1e-6

"""Signed SASRec: the contract, its input and its loss."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

from conrec.baselines.signed.lessons import lessons_of_next, together
from conrec.baselines.signed.losses import softmax_loss, unlikelihood
from conrec.baselines.signed.signed_sasrec import SignedSasrecNetwork
from conrec.settings.baselines.signed import SignedSasrecConfig
from tests.baselines.signed.conformance import SignedConformance
from tests.conformance import small_log

SMALL = {"hidden_size": 16, "max_length": 10, "epochs": 2, "batch_size": 8, "weight_decay": 0.01, "dropout": 0.1}


class TestSignedSasrec(SignedConformance):
    row = "sasrec-signed"
    small: ClassVar[dict[str, Any]] = SMALL
    learns: ClassVar[dict[str, Any]] = {"epochs": 15, "learning_rate": 1e-2, "dropout": 0.0, "batch_size": 16}


def test_a_state_knows_the_events_before_it_and_their_signs() -> None:
    torch.manual_seed(0)
    network = SignedSasrecNetwork(small_log(items=9), SignedSasrecConfig(**SMALL)).eval()
    item, feedback = torch.tensor([[3, 1, 4]]), torch.tensor([[1, -1, 0]])
    states = network.states(item, feedback)
    assert states.shape == (1, 4, 16)
    for place in range(3):
        other_item, other_sign = item.clone(), feedback.clone()
        other_item[0, place], other_sign[0, place] = 7, feedback[0, place] * -1 + (feedback[0, place] == 0).long()
        for changed in (network.states(other_item, feedback), network.states(item, other_sign)):
            moved = (changed - states).abs().amax(dim=2)[0] > 1e-6
            assert moved.tolist() == [False] * (place + 1) + [True] * (3 - place)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_its_loss_is_that_on_dislikes_and_a_share_of_that_on_likes(weight: float) -> None:
    settings = SignedSasrecConfig(**SMALL, opposite="unlikelihood", opposite_weight=weight)
    log = small_log(events=120)
    network = SignedSasrecNetwork(log, settings).eval()
    asked = together(lessons_of_next(log, 8)[:5])
    states = network.states(asked.item, asked.feedback)
    rows = [network.logits(states[row, seen][None]) for row, seen in zip(asked.row, asked.seen, strict=True)]
    logits = torch.cat(rows)
    expected = softmax_loss(logits, asked.dislikes) + weight * unlikelihood(logits, asked.dislikes, asked.likes)
    torch.testing.assert_close(network.loss(asked), expected)

"""S3-Rec: what is hidden, the four losses against loops, that pretraining teaches, and the contract."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Ragged
from conrec.baselines.sequential.s3_pretraining import TASKS, Corrupted, Pretraining, corrupt
from conrec.baselines.sequential.s3_rec import S3Rec, pretrained
from conrec.baselines.sequential.sasrec import SasrecNetwork
from conrec.errors import NotApplicableError
from conrec.logs.log import Log
from conrec.settings.baselines.features import S3RecConfig
from conrec.workspace import Workspace
from tests.baselines.conformance import TrainedConformance
from tests.baselines.sequential.kinds import CATEGORIES as KINDS
from tests.baselines.sequential.kinds import CUT as KINDS_CUT
from tests.baselines.sequential.kinds import follows_kinds, kinds_in_turn
from tests.conformance import CUT, queries_of, small_log

SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 1, "batch_size": 8,
    "weight_decay": 0.01, "pretraining_epochs": 1, "pretraining_batch_size": 16,
}  # fmt: skip
ITEMS, CATEGORIES = 9, 3
OF = Ragged.from_rows([[0], [1], [0, 2], [], [2], [1, 2], [0], [0, 1, 2], [1]])


class TestS3Rec(TrainedConformance):
    row = "s3-rec"
    small: ClassVar[dict[str, Any]] = SMALL


_space = TestS3Rec().space


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 1000))
def test_what_is_hidden(lengths: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = [random.integers(0, ITEMS, one) for one in lengths]
    data = np.concatenate(rows)
    runs = {tuple(data[a:b].tolist()) for a in range(len(data)) for b in range(a + 1, len(data) + 1)}
    found = corrupt(rows, ITEMS, data, 0.3, random)
    width = 1 + max(lengths)
    for b, row in enumerate(rows):
        assert found.length[b] == 1 + len(row)
        assert found.token[b].tolist() == [ITEMS, *row.tolist()] + [ITEMS] * (width - 1 - len(row))
        assert found.place[b].tolist() == [False] + [True] * len(row) + [False] * (width - 1 - len(row))
        assert found.hidden[b].any()
        assert not (found.hidden[b] & ~found.place[b]).any()
        cut = found.segment[b].nonzero()[:, 0].tolist()
        assert len(cut) <= len(row) // 2
        assert bool(cut) == (len(row) > 1)
        assert cut == list(range(cut[0], cut[0] + len(cut))) if cut else True
        assert not (found.segment[b] & ~found.place[b]).any()
        assert torch.equal(found.stranger[b][~found.segment[b]], found.token[b][~found.segment[b]])
        assert not cut or tuple(found.stranger[b][found.segment[b]].tolist()) in runs


def test_a_fifth_of_the_items_is_hidden() -> None:
    rows = [np.arange(8)] * 2000
    found = corrupt(rows, ITEMS, np.concatenate(rows), 0.2, np.random.default_rng(0))
    # One in 0.8**8 = 17 % of the sequences is hidden where chance left all of them.
    assert found.hidden.sum() / found.place.sum() == pytest.approx(0.2 + 0.8**8 / 8, abs=0.01)


def _task() -> Pretraining:
    torch.manual_seed(3)
    task = Pretraining(SasrecNetwork(ITEMS, S3RecConfig(**SMALL)), OF, CATEGORIES)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return task.double().eval()


def _batch() -> Corrupted:
    rows = [np.array(one) for one in ([4, 3, 0, 7, 2], [5], [1, 3], [8, 6, 2, 2])]
    return corrupt(rows, ITEMS, np.concatenate(rows), 0.4, np.random.default_rng(2))


def _state_of(task: Pretraining, tokens: list[int], hidden: list[bool]) -> torch.Tensor:
    """States of one sequence by itself, so that no padding stands beside it."""
    encoder = task.encoder
    rows = [
        (task.mask if hide else encoder.item.weight[token]) + encoder.position.weight[place]
        for place, (token, hide) in enumerate(zip(tokens, hidden, strict=True))
    ]
    x = torch.stack(rows)[None]
    for block in encoder.blocks:
        x = block(x)
    return encoder.norm(x)[0]


def _dot(one: torch.Tensor, other: torch.Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, other, strict=True))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@torch.no_grad()
def test_the_four_losses_are_their_formulas() -> None:
    task, batch = _task(), _batch()
    expected = {one: [0.0, 0] for one in TASKS}
    for b in range(len(batch.length)):
        n = int(batch.length[b])
        tokens, hidden = batch.token[b, :n].tolist(), batch.hidden[b, :n].tolist()
        states = _state_of(task, tokens, hidden)
        for place in range(1, n):
            item = tokens[place]
            one = "map" if hidden[place] else "aap"
            has = OF[item].tolist()
            if has:
                asked = task.project[one](states[place])
                for category in range(CATEGORIES):
                    share = _sigmoid(_dot(asked, task.category.weight[category]))
                    expected[one][0] -= math.log(share if category in has else 1 - share)
                expected[one][1] += 1
            if hidden[place]:
                asked = task.project["mip"](states[place])
                scores = [_dot(asked, task.encoder.item.weight[i]) + float(task.bias[i]) for i in range(ITEMS)]
                expected["mip"][0] -= scores[item] - math.log(sum(math.exp(score) for score in scores))
                expected["mip"][1] += 1
        segment = batch.segment[b, :n].tolist()
        if any(segment):
            rest = [place > 0 and not cut for place, cut in enumerate(segment)]
            asked = task.project["sp"](_state_of(task, tokens, segment)[-1])
            own = _dot(asked, _state_of(task, tokens, rest)[-1])
            strange = _dot(asked, _state_of(task, batch.stranger[b, :n].tolist(), rest)[-1])
            expected["sp"][0] -= math.log(_sigmoid(own - strange))
            expected["sp"][1] += 1
    found = task.losses(batch)
    assert found["sp"][1] == 3
    for one in TASKS:
        assert found[one][1] == expected[one][1]
        assert float(found[one][0]) == pytest.approx(expected[one][0], rel=1e-9)


def test_pretraining_lowers_every_loss_and_the_next_kind_is_learned() -> None:
    log = kinds_in_turn()
    schedule = {"epochs": 12, "learning_rate": 5e-3, "pretraining_epochs": 25, "pretraining_learning_rate": 3e-3}
    sizes = {"hidden_size": 32, "pretraining_batch_size": 8, "pretraining_dropout": 0.0}
    model = S3Rec.fit(_space(log, KINDS_CUT, world={"categories": KINDS}, **schedule, **sizes), "s3-rec")
    for task in TASKS:
        epochs, values = zip(*model.curve[f"pretraining_{task}"], strict=True)
        assert epochs == tuple(range(1, 26))
        # Which of two segments belongs to a history is nearly a coin's throw in so regular a world.
        assert (min(values) < values[0]) if task == "sp" else (np.mean(values[-3:]) < 0.95 * values[0])
    assert follows_kinds(model, log) > 0.6


def test_pretraining_changes_the_result_and_no_epochs_leave_sasrec() -> None:
    log = small_log()
    some, none = (S3Rec.fit(_space(log, pretraining_epochs=epochs), "s3-rec") for epochs in (1, 0))
    assert {one for one in none.curve if one.startswith("pretraining")} == set()
    assert some.curve["loss"] != none.curve["loss"]
    queries = queries_of(log)
    assert not np.array_equal(some.scores(log, queries), none.scores(log, queries))


@pytest.mark.parametrize("events", ["all", "negative"])
def test_only_the_chosen_events_of_the_training_period_are_pretrained_on(events: str) -> None:
    log = small_log()
    space = _space(log, pretraining_events=events, pretraining_weight_decay=0)
    settings_ = S3Rec.settings_of(space, "s3-rec")
    assert isinstance(settings_, S3RecConfig)

    def weights(of: Workspace) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = SasrecNetwork(log.n_items, settings_)
        pretrained(network, of, settings_, 0)
        return {name: one.detach() for name, one in network.state_dict().items()}

    found = weights(space)
    assert not found["bias"].any()
    for kept, same in ((log.before(CUT), True), (_only_negative(log), events == "negative")):
        other = _space(kept)
        other.prepared = replace(space.prepared, log=kept)
        again = weights(other)
        assert all(torch.equal(found[name], again[name]) for name in found) == same


def _only_negative(log: Log) -> Log:
    kept = log.feedback == -1
    return Log.from_columns(
        log.user_ids, log.item_ids, log.user[kept], log.item[kept], log.timestamp[kept], log.feedback[kept]
    )


def test_a_seed_is_of_the_pretraining_too() -> None:
    first, other = (S3Rec.fit(_space(small_log(), seed=seed), "s3-rec") for seed in (0, 1))
    assert all(other.curve[f"pretraining_{task}"] != first.curve[f"pretraining_{task}"] for task in TASKS)


def test_without_categories_it_does_not_apply() -> None:
    with pytest.raises(NotApplicableError, match="no item has a category"):
        S3Rec.fit(_space(small_log(), world={"categories": [[]] * 30}), "s3-rec")

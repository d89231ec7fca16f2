"""eSASRec and SASRec's sampled losses: the LiGR layer written out in loops, the contract, and that they learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from conrec.baselines.sequential.esasrec import ESasrec, LigrBlock
from conrec.baselines.sequential.sasrec import Sasrec
from conrec.errors import ArtefactError
from tests.baselines.conformance import TrainedConformance
from tests.baselines.worlds import CHAINS_END, chains, follows_chains
from tests.conformance import small_log

SMALL: dict[str, Any] = {
    "hidden_size": 16, "layers": 1, "heads": 2, "max_length": 8, "dropout": 0.1, "epochs": 3, "batch_size": 8,
    "weight_decay": 0.01, "negatives": 12,
}  # fmt: skip


class TestESasrec(TrainedConformance):
    row = "esasrec"
    small: ClassVar[dict[str, Any]] = SMALL


class TestSasrecSampled(TrainedConformance):
    row = "sasrec-sampled"
    small: ClassVar[dict[str, Any]] = SMALL


class TestSasrecGbce(TrainedConformance):
    row = "sasrec-gbce"
    small: ClassVar[dict[str, Any]] = SMALL


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _linear(layer: torch.nn.Linear, values: list[float]) -> list[float]:
    rows = [sum(float(w) * v for w, v in zip(row, values, strict=True)) for row in layer.weight]
    return rows if layer.bias is None else [row + float(b) for row, b in zip(rows, layer.bias, strict=True)]


def _norm(layer: torch.nn.LayerNorm, values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    spread = sum((one - mean) ** 2 for one in values) / len(values)
    return [
        (one - mean) / math.sqrt(spread + layer.eps) * float(w) + float(b)
        for one, w, b in zip(values, layer.weight, layer.bias, strict=True)
    ]


def test_a_ligr_layer_is_its_equations() -> None:
    torch.manual_seed(0)
    width, heads, length = 4, 2, 3
    part = width // heads
    block = LigrBlock(width, heads, 0.5).double().eval().requires_grad_(False)
    x = torch.randn(1, length, width, dtype=torch.float64)
    mixed = [_linear(block.query_key_value, _norm(block.attention_norm, x[0, at].tolist())) for at in range(length)]
    found = block(x)
    for now in range(length):
        pooled = [0.0] * width
        for head in range(heads):
            own = range(head * part, (head + 1) * part)
            scores = [
                sum(mixed[now][i] * mixed[then][width + i] for i in own) / math.sqrt(part) for then in range(now + 1)
            ]
            total = sum(math.exp(one) for one in scores)
            for then, score in enumerate(scores):
                for i in own:
                    pooled[i] += math.exp(score) / total * mixed[then][2 * width + i]
        before = x[0, now].tolist()
        gate = [_sigmoid(one) for one in _linear(block.attention_gate, before)]
        middle = [b + g * one for b, g, one in zip(before, gate, _linear(block.attention_out, pooled), strict=True)]
        both = _linear(block.feed_in, _norm(block.feed_norm, middle))
        swiglu = [a * _sigmoid(a) * b for a, b in zip(both[: 4 * width], both[4 * width :], strict=True)]
        gate = [_sigmoid(one) for one in _linear(block.feed_gate, middle)]
        expected = [m + g * one for m, g, one in zip(middle, gate, _linear(block.feed_out, swiglu), strict=True)]
        assert found[0, now].tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("row", "epochs"), [(TestESasrec(), 20), (TestSasrecSampled(), 20), (TestSasrecGbce(), 30)])
def test_it_learns_what_follows_what(row: TrainedConformance, epochs: int) -> None:
    log = chains()
    model = row.fit(log, CHAINS_END, epochs=epochs, batch_size=16, learning_rate=1e-2)
    assert follows_chains(model, log) > 0.9


def test_one_rows_folder_is_not_read_as_anothers(tmp_path: Path) -> None:
    space = TestESasrec().space(small_log())
    ESasrec.fit(space, "esasrec").save(tmp_path)
    with pytest.raises(ArtefactError, match="not a saved sasrec of this catalogue"):
        Sasrec.load(tmp_path, space, "sasrec")


def test_more_and_better_negatives_change_what_is_learned() -> None:
    log = small_log()
    curves = [
        TestSasrecSampled().fit(log, **settings).curve["loss"]
        for settings in ({}, {"negatives": 20}, {"popular": 0.0}, {"log_q": False})
    ]
    assert all(one != other for index, one in enumerate(curves) for other in curves[:index])

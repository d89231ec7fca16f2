"""SASRec on dislikes: a causal transformer over each user's negatives, trained with the full softmax.

Self-Attentive Sequential Recommendation (Kang and McAuley, ICDM 2018), with these departures:

* the loss is the cross-entropy over the whole catalogue at every position, not binary cross-entropy against one
  sampled negative: with the original loss the model is a straw man (Klenitskiy and Vasilev, RecSys 2023);
* normalisation stands before attention and feed-forward, and the activation is GELU;
* a start token opens each sequence, so that the first dislike is learned as well and a user without any gets a
  prediction: the one that the start token leads to;
* each item has a learned bias beside its (tied) embedding: popularity then costs no directions of the embedding;
* scores are computed in double precision, so that a query's answer does not depend on the queries in its batch.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.artefacts import read_json, read_tensors, write_json, write_tensors
from conrec.baselines.base import CatalogueScorer
from conrec.config import ProtocolConfig, SasrecConfig
from conrec.errors import ArtefactError, DataError
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.progress import meter
from conrec.protocol import NEGATIVE, Periods
from conrec.recommender import Queries
from conrec.seeds import derive, generator

__all__ = ["Sasrec", "SasrecNetwork", "fit_sasrec"]

VALIDATION_K = 20
QUERY_BATCH = 256
POOL = 16
"""Batches that are sorted by length together."""


class Block(nn.Module):
    """One pre-norm transformer block with causal self-attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        """No padding mask is needed: padding stands behind the last event, where causal attention never looks."""
        batch, length, width = x.shape
        heads = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=drop)
        mixed = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + F.dropout(mixed, self.dropout, self.training)
        fed = self.feed_out(F.gelu(self.feed_in(self.feed_norm(x))))
        return x + F.dropout(fed, self.dropout, self.training)


class SasrecNetwork(nn.Module):
    """From a sequence of item indices to a score for every item after each position.

    Token ``n_items`` is the start of a sequence; padding may be any token and stands at the end.
    """

    def __init__(self, n_items: int, config: SasrecConfig) -> None:
        super().__init__()
        self.n_items, self.config = n_items, config
        self.item = nn.Embedding(n_items + 1, config.hidden_size)
        self.position = nn.Embedding(config.max_length, config.hidden_size)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.blocks = nn.ModuleList(
            Block(config.hidden_size, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def states(self, tokens: Int64[Tensor, "B T"]) -> Float[Tensor, "B T d"]:
        """The state after each position."""
        x = self.item(tokens) + self.position.weight[: tokens.shape[1]]
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    def logits(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows items"]:
        """Score of every item after each state: inner product with its embedding, plus its bias."""
        return states @ self.item.weight[: self.n_items].T + self.bias


@dataclass(frozen=True, slots=True)
class Sasrec(CatalogueScorer):
    """A fitted SASRec.

    Attributes:
        network: the best state on validation, in double precision.
        curve: series by name ("loss", "validation_fhr@20"), each of [epoch, value] pairs.
    """

    network: SasrecNetwork
    curve: dict[str, list[list[int | float]]] = field(default_factory=dict)

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Score of every item after the user's last negatives strictly before the query's time."""
        length, start = self.network.config.max_length, self.network.n_items
        result = np.empty((len(queries), self.network.n_items), dtype=np.float32)
        for begin in range(0, len(queries), QUERY_BATCH):
            batch = queries.select(slice(begin, begin + QUERY_BATCH))
            rows = []
            for user, timestamp in zip(batch.user, batch.timestamp, strict=True):
                past = log.history(int(user), int(timestamp))
                negatives = log.item[past[log.feedback[past] == NEGATIVE]]
                rows.append(np.r_[start, negatives][-length:])
            ends = torch.tensor([len(row) - 1 for row in rows])
            with torch.no_grad():
                states = self.network.states(_padded(rows, start))[torch.arange(len(rows)), ends]
                result[begin : begin + len(batch)] = self.network.logits(states).float().numpy()
        return result

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``config.json`` and ``curve.json`` into ``folder``."""
        state = self.network.state_dict()
        write_tensors(folder / "model.safetensors", {name: one.float().numpy() for name, one in state.items()})
        write_json(
            folder / "config.json",
            {"n_items": self.network.n_items, "sasrec": self.network.config.model_dump(mode="json")},
        )
        write_json(folder / "curve.json", self.curve)

    @classmethod
    def load(cls, folder: Path) -> Sasrec:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others.
        """
        described = read_json(folder / "config.json")
        try:
            network = SasrecNetwork(described["n_items"], SasrecConfig.model_validate(described["sasrec"]))
            state = {name: torch.from_numpy(one) for name, one in read_tensors(folder / "model.safetensors").items()}
            network.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"is not a saved SASRec ({error})", where=str(folder)) from None
        return cls(_frozen(network), read_json(folder / "curve.json"))


def fit_sasrec(
    log: Log, anchors: Anchors, periods: Periods, config: SasrecConfig, protocol: ProtocolConfig, seed: int
) -> Sasrec:
    """Train on the negatives of the training period and keep the state with the best validation FHR@20.

    Args:
        log: the whole log; validation histories are read from it.
        anchors: anchors of all splits; those of the validation period select the state. Where there are none,
            the state of the last epoch is kept.
        periods: the cuts of the log.
        config: sizes and schedule.
        protocol: for ``history_eligible``.
        seed: of the initial weights, dropout and the order of batches; one seed, one result for one number of threads.

    Raises:
        DataError: nobody disliked anything in the training period.
    """
    stretches = _stretches(log.before(periods.validation), config.max_length)
    if not stretches:
        raise DataError("the training period has no negative events", expected="at least one to learn from")
    validation = anchors.of_split("validation")
    curve: dict[str, list[list[int | float]]] = {"loss": [], f"validation_fhr@{VALIDATION_K}": []}
    with torch.random.fork_rng(devices=[]), meter("SASRec", config.epochs) as step:
        torch.manual_seed(derive(seed, "sasrec"))
        network = SasrecNetwork(log.n_items, config)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        best, best_value, best_epoch = _frozen(network), -math.inf, 0
        for epoch in range(1, config.epochs + 1):
            batches = _batches(stretches, config.batch_size, generator(seed, "sasrec", "order", epoch))
            loss = _epoch(network, optimizer, batches)
            curve["loss"].append([epoch, loss])
            state = _frozen(network)
            value = _validation(Sasrec(state), log, validation, protocol)
            if value is not None:
                curve[f"validation_fhr@{VALIDATION_K}"].append([epoch, value])
            if value is None or value > best_value:
                best, best_value, best_epoch = state, value or 0.0, epoch
            step(note=f"loss {loss:.3f}" + ("" if value is None else f", validation FHR {value:.3f}"))
            if epoch - best_epoch >= config.patience:
                break
    return Sasrec(best, curve)


def _stretches(log: Log, max_length: int) -> list[Array]:
    """Token sequences of the users' negatives, each of at most ``max_length`` inputs and one more target.

    A longer history is cut into stretches that overlap by half, so that most positions have seen at least
    half of ``max_length`` events before them, as they will at query time.
    """
    found = []
    for user in range(log.n_users):
        events = log.events_of(user)
        negatives = log.item[events[log.feedback[events] == NEGATIVE]]
        if len(negatives) == 0:
            continue
        tokens = np.r_[log.n_items, negatives]
        last = max(0, len(tokens) - 1 - max_length)
        begins = [*range(0, last, max(1, max_length // 2)), last]
        found += [tokens[begin : begin + max_length + 1] for begin in begins]
    return found


def _batches(stretches: list[Array], size: int, random: np.random.Generator) -> list[list[Array]]:
    """All stretches in random batches of similar lengths: most users have few negatives, and padding costs time."""
    order = random.permutation(len(stretches))
    batches = []
    for begin in range(0, len(order), POOL * size):
        pool = sorted((stretches[one] for one in order[begin : begin + POOL * size]), key=len)
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    return [batches[one] for one in random.permutation(len(batches))]


def _epoch(network: SasrecNetwork, optimizer: torch.optim.Optimizer, batches: list[list[Array]]) -> float:
    """One pass in the given order; mean loss over all positions.

    Batches of long stretches hold more positions than others: each loss is a sum over a common divisor, so that every
    position of the training period weighs the same.
    """
    network.train()
    positions = sum(len(one) - 1 for batch in batches for one in batch)
    total = 0.0
    for batch in batches:
        inputs = _padded([one[:-1] for one in batch], network.n_items)
        targets = _padded([one[1:] for one in batch], -1)
        real = targets >= 0
        logits = network.logits(network.states(inputs)[real])
        loss = F.cross_entropy(logits, targets[real], reduction="sum")
        optimizer.zero_grad()
        (loss * (len(batches) / positions)).backward()
        optimizer.step()
        total += float(loss.detach())
    return total / positions


def _validation(model: Sasrec, log: Log, anchors: Anchors, protocol: ProtocolConfig) -> float | None:
    """FHR@20 on the validation anchors; None where there are none."""
    if len(anchors) == 0:
        return None
    top = model.predict(log, anchors.queries, VALIDATION_K, history_eligible=protocol.history_eligible).item
    hits = [np.isin(top[row], future).any() for row, future in enumerate(anchors.future_negatives)]
    return float(np.mean(hits))


def _frozen(network: SasrecNetwork) -> SasrecNetwork:
    """A copy for answering: double precision, no dropout, no gradients."""
    return copy.deepcopy(network).double().eval().requires_grad_(False)


def _padded(rows: list[Array], fill: int) -> Int64[Tensor, "B T"]:
    """Rows of different length as one tensor, filled behind their ends."""
    result = np.full((len(rows), max(len(row) for row in rows)), fill, dtype=np.int64)
    for position, row in enumerate(rows):
        result[position, : len(row)] = row
    return torch.from_numpy(result)

"""Training examples of the encoder-decoders: histories of dislikes, and the dislikes that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.baselines.generative.encoder_decoder import EncoderDecoder
from conrec.baselines.generative.tokens import END, PAD, Tokens
from conrec.baselines.generative.trie_search import CodeLogits, log_probabilities
from conrec.baselines.sequences.histories import padded
from conrec.baselines.sequences.stretches import stretches_of
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.settings.baselines.generative import EncoderDecoderSettings

__all__ = ["Batch", "Example", "batch_of", "examples_of", "inputs", "loss_of"]


@dataclass(frozen=True, slots=True)
class Example:
    """A stretch of one user's dislikes, some of them targets behind those before them.

    Attributes:
        user_id: of the user.
        items: int [n], in time order.
        target: bool [n], which of ``items`` are targets.
    """

    user_id: str
    items: Array
    target: Array

    def __len__(self) -> int:
        return len(self.items)


def examples_of(log: Log, settings: EncoderDecoderSettings, random: np.random.Generator | None = None) -> list[Example]:
    """The dislikes of a log as targets behind at most ``max_length`` before each, once each.

    With a causal encoder a stretch of history has all its targets in one example. Longer histories are cut into
    stretches that overlap by half. With a bidirectional encoder each target has an example of its own: from a history
    that holds it, it could be read off. Of dislikes of the same time only one is a target, see
    `conrec.baselines.sequences.stretches.stretches_of`.

    Args:
        log: of the training period.
        settings: of the encoder.
        random: draws the order of dislikes of the same time; None: as in the log.

    Raises:
        DataError: nobody disliked anything.
    """
    most = settings.max_length
    if settings.encoder == "causal":
        return [
            Example(log.user_ids[log.user[one.events[0]]], log.item[one.events], one.target)
            for one in stretches_of(log, most + 1, (NEGATIVE,), random)
        ]
    found = []
    for history in stretches_of(log, len(log), (NEGATIVE,), random):
        user_id, items = log.user_ids[log.user[history.events[0]]], log.item[history.events]
        for place in np.flatnonzero(history.target):
            shown = items[max(0, place - most) : place + 1]
            found.append(Example(user_id, shown, np.arange(len(shown)) == len(shown) - 1))
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples as tensors.

    Attributes:
        tokens: int64 [B, S], see `EncoderDecoder.encode`, or where there are places `EncoderDecoder.encode_stretches`.
        target: int64 [B, P], items, -1 where a row has no target.
        places: int64 [P], how many tokens stand before each target; None where each row has one behind its end.
    """

    tokens: Int64[Tensor, "B S"]
    target: Int64[Tensor, "B P"]
    places: Int64[Tensor, " P"] | None

    @property
    def targets(self) -> int:
        """How many there are."""
        return int((self.target >= 0).sum())


def batch_of(examples: Sequence[Example], tokens: Tokens, causal: bool, device: torch.device) -> Batch:
    """Some examples as a batch."""
    rows = [tokens.of_history(one.user_id, one.items[:-1]) for one in examples]
    if not causal:
        target = torch.tensor([[int(one.items[-1])] for one in examples], device=device)
        return Batch(inputs(rows).to(device), target, None)
    target = padded([np.where(one.target, one.items, -1) for one in examples], -1).to(device)
    places = tokens.before + tokens.levels * torch.arange(target.shape[1], device=device)
    return Batch(padded([np.asarray(row, dtype=np.int64) for row in rows], PAD).to(device), target, places)


def inputs(rows: Sequence[Sequence[int]]) -> Int64[Tensor, "B S"]:
    """What `Tokens.of_history` gave as `EncoderDecoder.encode` wants it: ended, and padded before the beginning."""
    width = max(len(row) for row in rows) + 1
    return torch.tensor([[PAD] * (width - 1 - len(row)) + [*row, END] for row in rows], dtype=torch.int64)


def loss_of(network: EncoderDecoder, tokens: Tokens, trie: Trie, batch: Batch) -> Float[Tensor, ""]:
    """Sum over targets of the cross-entropy of all codes of their IDs, by teacher forcing.

    Args:
        network: in training mode.
        tokens: its vocabulary.
        trie: of the catalogue.
        batch: of examples.
    """
    written = tokens.of_items_on(batch.target.clamp(min=0), trie.codes)
    if batch.places is None:
        memory = network.encode(batch.tokens)
    else:
        memory = network.encode_stretches(batch.tokens, batch.places)
    real = batch.target >= 0
    hidden = network.decode(memory, written[..., :-1])[real]
    if network.settings.loss == "vocabulary":
        return F.cross_entropy(network.t5.lm_head(hidden).flatten(0, 1), written[real].flatten(), reduction="sum")
    every = EligibleTrie(trie, batch.target.new_empty(1, 0))
    return -log_probabilities(CodeLogits(network, tokens), every, hidden[None], batch.target[real][None]).sum()

"""The four pretraining tasks of S3-Rec: what is hidden of a sequence, and the loss of guessing it.

S3-Rec (Zhou et al., CIKM 2020, arXiv 2008.07873). Every sequence is read by an encoder that looks both
ways; categories are the attributes. The tasks:

* associated attribute prediction (AAP): which categories an item that is shown has;
* masked item prediction (MIP): which item is hidden;
* masked attribute prediction (MAP): which categories an item that is hidden has;
* segment prediction (SP): which of two runs of items was cut out of a sequence.

Departures from the paper, most of them towards the authors' own code:

* AAP and MAP are a binary cross-entropy over all categories, as in that code, where the paper contrasts each category
  of an item with all that it does not have; items without categories have no part in them;
* MIP is the cross-entropy over the whole catalogue, which is the paper's bound with every other item as a negative, and
  not the comparison with one drawn item; a bias for each item, which does not outlive the pretraining, takes up
  popularity;
* scores are inner products; the paper puts them through a sigmoid inside the loss, which keeps it from falling;
* sequences are stretches of the users' histories and not all of their beginnings; what is hidden of them is drawn anew
  in each epoch, one item at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from conrec.arrays import Array, Ragged
from conrec.baselines.base import Curve
from conrec.baselines.sequences.blocks import Block, initialise
from conrec.baselines.sequences.histories import padded
from conrec.baselines.sequences.learning import learn
from conrec.baselines.sequences.losses import full_softmax
from conrec.baselines.sequences.stretches import batches_by_length
from conrec.baselines.sequential.sasrec import SasrecNetwork
from conrec.seeds import generator
from conrec.settings.baselines.base import TrainingSettings
from conrec.settings.baselines.features import S3RecConfig

__all__ = ["TASKS", "Corrupted", "Pretraining", "corrupt", "pretrain"]

TASKS = ("aap", "mip", "map", "sp")
"""In the order of the paper's settings."""


@dataclass(frozen=True, slots=True)
class Corrupted:
    """What is hidden of B sequences of at most T tokens, padded behind their ends.

    Attributes:
        token: int64 [B, T], item indices; the number of items stands for the start, at position 0, and for padding.
        length: int64 [B], tokens that are there, the start among them.
        place: bool [B, T], where an item stands.
        hidden: bool [B, T], the items that are hidden for MIP and MAP, one or more of each sequence.
        segment: bool [B, T], for SP a run of items of each sequence, at most half of them; none of one item alone.
        stranger: int64 [B, T], ``token`` with another run of items, from anywhere in the data, in the segment's place.
    """

    token: Int64[Tensor, "B T"]
    length: Int64[Tensor, " B"]
    place: Bool[Tensor, "B T"]
    hidden: Bool[Tensor, "B T"]
    segment: Bool[Tensor, "B T"]
    stranger: Int64[Tensor, "B T"]


def corrupt(
    rows: Sequence[Array], n_items: int, data: Array, mask_share: float, random: np.random.Generator
) -> Corrupted:
    """Draw what is hidden of each sequence.

    Args:
        rows: item indices of B sequences, one item or more each, without a start token.
        n_items: size of the catalogue.
        data: int [n], all sequences behind one another; strange segments are runs of it.
        mask_share: share of the items that are hidden.
        random: draws.
    """
    token = padded([np.r_[n_items, row] for row in rows], n_items).numpy()
    place = np.zeros(token.shape, dtype=np.bool_)
    hidden, segment, stranger = place.copy(), place.copy(), token.copy()
    for b, row in enumerate(rows):
        n = len(row)
        place[b, 1 : n + 1] = True
        drawn = random.random(n) < mask_share
        if not drawn.any():
            drawn[random.integers(n)] = True
        hidden[b, 1 : n + 1] = drawn
        if n < 2:
            continue
        size = int(random.integers(1, n // 2 + 1))
        begin = 1 + int(random.integers(n - size + 1))
        other = int(random.integers(len(data) - size + 1))
        segment[b, begin : begin + size] = True
        stranger[b, begin : begin + size] = data[other : other + size]
    length = torch.tensor([1 + len(row) for row in rows])
    return Corrupted(torch.from_numpy(token), length, *map(torch.from_numpy, (place, hidden, segment, stranger)))


class Pretraining(nn.Module):
    """An encoder with what the four tasks need beside it and what is thrown away behind them.

    Args:
        encoder: whose weights are pretrained; from now on its blocks look both ways.
        categories: of each item, below ``n_categories``.
        n_categories: C.
    """

    def __init__(self, encoder: SasrecNetwork, categories: Ragged, n_categories: int) -> None:
        super().__init__()
        width = encoder.item.embedding_dim
        self.categories, self.n_categories = categories, n_categories
        self.category = nn.Embedding(n_categories, width)
        self.project = nn.ModuleDict({task: nn.Linear(width, width) for task in TASKS})
        self.mask = nn.Parameter(0.02 * torch.randn(width))
        self.bias = nn.Parameter(torch.zeros(encoder.n_items))
        initialise(self)
        self.encoder = encoder
        for block in encoder.modules():
            if isinstance(block, Block):
                block.causal = False

    def losses(self, batch: Corrupted) -> dict[str, tuple[Float[Tensor, ""], int]]:
        """Of each task the summed loss and the number of what it is summed over: items, and sequences for SP."""
        states = self._states(batch.token, batch.hidden, batch.length)
        shown = batch.place & ~batch.hidden
        logits = self.project["mip"](states[batch.hidden]) @ self.encoder.item.weight[:-1].T + self.bias
        return {
            "aap": self._attributes("aap", states[shown], batch.token[shown]),
            "mip": (full_softmax(logits, batch.token[batch.hidden]), int(batch.hidden.sum())),
            "map": self._attributes("map", states[batch.hidden], batch.token[batch.hidden]),
            "sp": self._segments(batch),
        }

    def _attributes(
        self, task: str, states: Float[Tensor, "n d"], items: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, ""], int]:
        """Binary cross-entropy of all categories of the items that have any."""
        rows = self.categories.take(items.numpy())
        known = rows.lengths > 0
        wanted = np.zeros((len(items), self.n_categories), dtype=np.float32)
        wanted[np.repeat(np.arange(len(items)), rows.lengths), rows.values] = 1
        logits = self.project[task](states[torch.from_numpy(known)]) @ self.category.weight.T
        target = torch.from_numpy(wanted[known]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum"), int(known.sum())

    def _segments(self, batch: Corrupted) -> tuple[Float[Tensor, ""], int]:
        """The segment's own state against a strange one's, given the sequence without it.

        A segment stands where it stood, with everything else hidden, and so does the strange one: nothing but their
        items tells them apart. The last state of each of the three is compared.
        """
        some = batch.segment.any(dim=1)
        segment, length = batch.segment[some], batch.length[some]
        rest = batch.place[some] & ~segment
        count = len(length)
        if count == 0:
            return self.mask.sum() * 0, 0
        tokens = torch.cat([batch.token[some], batch.token[some], batch.stranger[some]])
        states = self._states(tokens, torch.cat([segment, rest, rest]), length.repeat(3))
        last = states[torch.arange(3 * count), length.repeat(3) - 1]
        context, own, strange = last[:count], last[count : 2 * count], last[2 * count :]
        asked = self.project["sp"](context)
        return F.softplus((asked * strange).sum(dim=1) - (asked * own).sum(dim=1)).sum(), count

    def _states(
        self, token: Int64[Tensor, "B T"], hidden: Bool[Tensor, "B T"], length: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B T d"]:
        """States of an encoder that sees everything but padding, with a mask in place of what is hidden."""
        encoder, size = self.encoder, token.shape[1]
        x = torch.where(hidden[..., None], self.mask, encoder.item(token)) + encoder.position.weight[:size]
        x = F.dropout(x, encoder.dropout, self.training)
        seen = torch.arange(size) < length[:, None]
        for block in encoder.blocks:
            x = block(x, seen)
        normed: Tensor = encoder.norm(x)
        return normed


def pretrain(task: Pretraining, sequences: Sequence[Array], settings: S3RecConfig, seed: int) -> Curve:
    """Train an encoder on the four tasks, in place.

    Args:
        task: the encoder and what goes with it.
        sequences: item indices, one item or more each, and one less than the encoder has positions.
        settings: epochs, weights and the share that is hidden.
        seed: of order and chance.

    Returns:
        The mean loss of each task in every epoch, "pretraining_aap" and so on.
    """
    data, n_items = np.concatenate(sequences), task.encoder.n_items
    weights = {one: float(getattr(settings, f"{one}_weight")) for one in TASKS}
    curve: Curve = {f"pretraining_{one}": [] for one in TASKS}
    sums: dict[str, Array] = {}

    def batches(epoch: int) -> list[Corrupted]:
        _close(curve, sums)
        random = generator(seed, "pretraining", epoch)
        drawn = batches_by_length(sequences, settings.pretraining_batch_size, random)
        return [corrupt(rows, n_items, data, settings.mask_share, random) for rows in drawn]

    def loss_of(batch: Corrupted) -> Float[Tensor, ""]:
        found = task.losses(batch)
        for one, (loss, count) in found.items():
            sums[one] = sums.get(one, 0.0) + np.array([float(loss.detach()), count])
        return torch.stack([weights[one] * loss for one, (loss, _) in found.items()]).sum()

    schedule = TrainingSettings(
        epochs=settings.pretraining_epochs,
        batch_size=settings.pretraining_batch_size,
        learning_rate=settings.pretraining_learning_rate,
        weight_decay=settings.pretraining_weight_decay,
    )
    learn(task, batches, loss_of, lambda batch: int(batch.place.sum()), schedule, lambda _: None, "S3-Rec pretraining")
    _close(curve, sums)
    return curve


def _close(curve: Curve, sums: dict[str, Array]) -> None:
    """Put the means of an epoch behind the series, and start the next."""
    for one, (loss, count) in sums.items():
        series = curve[f"pretraining_{one}"]
        series.append([len(series) + 1, float(loss / max(1.0, count))])
    sums.clear()

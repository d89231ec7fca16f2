"""A signed graph model: interest and disinterest are convolved on graphs of their own, and dislikes are ranked.

PANE-GNN (Liu et al., 2023, arXiv 2306.04095): the graph of likes and the graph of dislikes are kept apart, items have
an interest and a disinterest vector, light graph convolution spreads each over its graph, a loss over both kinds of
feedback ranks both, and a contrast between distortions of the graph of dislikes keeps noise out. Departures:

* dislikes are ranked, by disinterest less a learned share of interest; there, likes are ranked by interest, and items
  of high disinterest are dropped;
* users have no vectors of their own: a user is what his events up to the time of the question sum to, with the weights
  of light graph convolution. So histories up to the question count, and users who came later have an answer;
* neutral events are a third graph; they and interest add to a user's disinterest through learned linear maps, without
  which a user who has not disliked anything yet would have none;
* the loss is the softmax over the whole catalogue, for dislikes and, with a weight, for likes, in place of BPR;
* users are drawn into parts in each epoch, and asked on the graph of all other parts: otherwise the edge that is asked
  for would be in the graph, and the model would learn to find it there;
* the contrast is between items that the batch asks for, by two random drops of edges;
* scores start from the logarithm of each item's number of dislikes, and each item has a learned bias, one for dislikes
  and one for likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.baselines.sequences.blocks import initialise
from conrec.baselines.sequences.stretches import batches_by_length
from conrec.baselines.signed.graph import Graph
from conrec.baselines.signed.lessons import Asked, Lesson
from conrec.baselines.signed.losses import softmax_loss
from conrec.baselines.signed.scorer import SignedNetwork, SignedScorer
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE, NEUTRAL, POSITIVE
from conrec.settings.baselines.signed import SignedGraphConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "SignedGraph", "SignedGraphNetwork", "contrast"]

SPACE: dict[str, tuple[float | int | str, ...]] = {
    "layers": (0, 1, 2),
    "targets": ("windows", "anchors", "next"),
    "contrast_weight": (0.0, 0.01, 0.1),
}
"""The grid that `conrec baselines search` searches."""

NAMES = {NEGATIVE: "dislikes", NEUTRAL: "neutral", POSITIVE: "likes"}
Graphs = dict[int, Graph]
"""The graph of each sign."""
Tables = dict[int, Tensor]
"""Convolved vectors of all items, float [items, d], for each sign."""


class SignedGraphNetwork(SignedNetwork):
    """From events with signs to a user's disinterest and interest after each of them, and their scores.

    Args:
        log: of the training period, whose graphs are convolved; they are not saved with the network.
        settings: sizes.
    """

    def __init__(self, log: Log, settings: SignedGraphConfig) -> None:
        super().__init__(log, settings.max_length)
        width, self.settings = settings.hidden_size, settings
        self.graphs = {sign: Graph.of(log, sign) for sign in self.signs}
        self.part_of = np.zeros(log.n_users, dtype=np.int64)
        """The part of each user in this epoch."""
        self.without_part = [self.graphs]
        """For each part the graphs of all others."""
        self.item = nn.ParameterDict(
            {NAMES[sign]: nn.Parameter(torch.randn(log.n_items, width) * 0.1) for sign in self.signs}
        )
        self.from_likes = nn.Linear(width, width, bias=False)
        self.from_neutral = nn.Linear(width, width, bias=False)
        self.share = nn.Parameter(torch.zeros(()))
        self.like_bias = nn.Parameter(torch.zeros(log.n_items))
        initialise(self)
        self._whole: Tables | None = None

    def batches(self, lessons: Sequence[Lesson], size: int, random: np.random.Generator) -> list[list[Lesson]]:
        """Users are drawn into parts; every batch is of users of one part."""
        folds = self.settings.folds
        self.part_of = random.integers(0, folds, len(self.part_of))
        self.without_part = [
            {sign: graph.without(self.part_of == part) for sign, graph in self.graphs.items()} for part in range(folds)
        ]
        found = []
        for part in range(folds):
            found += batches_by_length([one for one in lessons if self.part_of[one.user] == part], size, random)
        return [found[one] for one in random.permutation(len(found))]

    def tables(self, graphs: Graphs) -> Tables:
        """Convolved vectors of all items, by sign."""
        layers = self.settings.layers
        return {sign: graphs[sign].convolved(self.vectors(sign), layers) for sign in self.signs}

    def vectors(self, sign: int) -> Float[Tensor, "items d"]:
        """Vectors of all items at layer 0."""
        found: Tensor = self.item[NAMES[sign]]
        return found

    def users(
        self, graphs: Graphs, tables: Tables, item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"]
    ) -> Float[Tensor, "B T+1 w"]:
        """Disinterest and interest, side by side, before the first event and after each one.

        Each sign's part is ``sum over the events of the sign of weight(item) * table(item) / events**damping``, the
        weight being 1 / sqrt(degree of the item), in units in which a mean degree weighs 1, so that it does not
        depend on the size of the graph.
        """
        own = {}
        for sign in self.signs:
            of_sign = ((feedback == sign) & (item >= 0)).to(tables[sign].dtype)
            degree = graphs[sign].degree.clamp(min=1).to(tables[sign].dtype)
            weight = torch.sqrt(degree.mean() / degree)
            known = item.clamp(min=0)
            summed = (F.embedding(known, tables[sign]) * (of_sign * weight[known])[:, :, None]).cumsum(dim=1)
            count = of_sign.cumsum(dim=1).clamp(min=1)
            own[sign] = F.pad(summed / (count**self.settings.damping)[:, :, None], (0, 0, 1, 0))
        disinterest = own[NEGATIVE] + self.from_likes(own[POSITIVE]) + self.from_neutral(own[NEUTRAL])
        return torch.cat([disinterest, own[POSITIVE]], dim=2)

    def scores(self, tables: Tables, users: Float[Tensor, "rows w"]) -> Float[Tensor, "rows items"]:
        """``<disinterest, item> - share * <interest, item> + popularity + bias`` for every item."""
        items = torch.cat([tables[NEGATIVE], -self.share * tables[POSITIVE]], dim=1)
        return users @ items.T + self.prior + self.bias

    def states(self, item: Int64[Tensor, "B T"], feedback: Int64[Tensor, "B T"]) -> Float[Tensor, "B T+1 w"]:
        """What the graphs of the whole training period say of each user."""
        return self.users(self.graphs, self.whole(), item, feedback)

    def logits(self, states: Float[Tensor, "rows w"]) -> Float[Tensor, "rows items"]:
        """Scores on the graphs of the whole training period."""
        return self.scores(self.whole(), states)

    def whole(self) -> Tables:
        """Tables of the whole training period; those of a network that answers are kept."""
        if self.training:
            return self.tables(self.graphs)
        if self._whole is None:
            self._whole = self.tables(self.graphs)
        return self._whole

    def loss(self, asked: Asked) -> Float[Tensor, ""]:
        """Softmax on dislikes and on likes over the graphs without the users who are asked, and the contrast."""
        settings = self.settings
        graphs = self.without_part[self.part_of[int(asked.user[0])]]
        tables = self.tables(graphs)
        users = self.users(graphs, tables, asked.item, asked.feedback)[asked.row, asked.seen]
        users = F.dropout(users, settings.dropout, self.training)
        loss = softmax_loss(self.scores(tables, users), asked.dislikes)
        if settings.like_weight:
            liked = users[:, settings.hidden_size :] @ tables[POSITIVE].T + self.like_bias
            loss = loss + settings.like_weight * softmax_loss(liked, asked.likes)
        if settings.contrast_weight:
            wanted = asked.dislikes.item.unique()
            one, other = (self.distorted(graphs[NEGATIVE])[wanted] for _ in range(2))
            loss = loss + settings.contrast_weight * len(asked) * contrast(one, other, settings.temperature)
        return loss

    def distorted(self, graph: Graph) -> Float[Tensor, "items d"]:
        """Disinterest vectors over a graph that has lost a random share of its edges."""
        table = self.vectors(NEGATIVE)
        kept = (torch.rand(len(graph)) >= self.settings.distortion).to(table.dtype)
        return graph.convolved(table, self.settings.layers, kept)


def contrast(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"], temperature: float) -> Float[Tensor, ""]:
    """InfoNCE: how hard it is to tell which row of ``other`` is the same item as a row of ``one``, mean over rows.

    ``-log( exp(cos(one_i, other_i) / t) / sum over j of exp(cos(one_i, other_j) / t) )``
    """
    similarity = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(one)))


class SignedGraph(SignedScorer):
    """The row ``signed-graph``."""

    kind: ClassVar[str] = "signed graph"

    @classmethod
    def build(cls, space: Workspace, settings: SignedGraphConfig) -> SignedGraphNetwork:
        """An untrained network over the graphs of the training period."""
        return SignedGraphNetwork(space.training_log, settings)

"""FDSA on dislikes: one self-attention stream over the disliked items, and one over what is known of them.

Feature-level Deeper Self-Attention Network (Zhang et al., IJCAI 2019). An item's features are its categories and the
embedding of its text; vanilla attention weighs them into one vector; the last states of both streams are concatenated
and projected. Departures:

* text comes as the embedding of the run's encoder through a learned projection, not as word vectors of a few keywords;
* each category is a feature of its own, so that attention also weighs the categories of one item;
* the energy of a feature comes from one hidden layer, as in RecBole's FDSA;
* loss, start token, item bias, place of the normalisation and precision are as in `sequential.sasrec`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.arrays import Array, Ragged
from conrec.baselines.sequences.blocks import Block, initialise, through
from conrec.baselines.sequential.sasrec import Sasrec, SasrecNetwork
from conrec.errors import NotApplicableError
from conrec.settings.baselines.base import TransformerSettings
from conrec.settings.baselines.features import FdsaConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "Fdsa", "FdsaNetwork", "FeatureAttention"]

SPACE: dict[str, tuple[Any, ...]] = {
    "features": ("both", "categories", "text"),
    "hidden_size": (32, 64, 128),
    "dropout": (0.2, 0.5),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""


class FeatureAttention(nn.Module):
    """Vanilla attention over the features of an item: ``sum_f softmax(energy(f)) * f``.

    Args:
        categories: of each item, below ``n_categories``.
        n_categories: C; 0: categories are no features.
        text: float32 [items, e], a row of zeros where nothing is known; None: text is no feature.
        width: d.
    """

    def __init__(self, categories: Ragged, n_categories: int, text: Array | None, width: int) -> None:
        super().__init__()
        self.categories = categories if n_categories else None
        self.category = nn.Embedding(n_categories, width)
        self.text: Tensor | None = None
        if text is not None:
            self.project = nn.Linear(text.shape[1], width)
            self.text = torch.from_numpy(text)
        self.energy = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, items: Int64[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The vector of each item; 0 where nothing is known of it."""
        dtype = self.category.weight.dtype
        vectors, owners = [], []
        if self.categories is not None:
            rows = self.categories.take(items.numpy())
            vectors.append(self.category(torch.from_numpy(rows.values.astype(np.int64))))
            owners.append(torch.from_numpy(np.repeat(np.arange(len(items)), rows.lengths)))
        if self.text is not None:
            said = self.text[items]
            known = said.any(dim=1)
            vectors.append(self.project(said[known].to(dtype)))
            owners.append(known.nonzero()[:, 0])
        features, owner = torch.cat(vectors), torch.cat(owners)
        energy = self.energy(features)[:, 0]
        # A softmax over each item's own features, however many those are.
        peak = energy.new_full((len(items),), -torch.inf).scatter_reduce(0, owner, energy.detach(), "amax")
        weight = (energy - peak[owner]).exp()
        total = energy.new_zeros(len(items)).index_add(0, owner, weight)
        return features.new_zeros(len(items), features.shape[1]).index_add(
            0, owner, features * (weight / total[owner])[:, None]
        )


class FdsaNetwork(SasrecNetwork):
    """SASRec with a second stream beside it; its states are of both."""

    def __init__(self, n_items: int, settings: TransformerSettings, features: FeatureAttention) -> None:
        super().__init__(n_items, settings)
        width = settings.hidden_size
        self.features = features
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.feature_blocks = nn.ModuleList(
            Block(width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.feature_norm = nn.LayerNorm(width)
        self.join = nn.Linear(2 * width, width)
        for module in (self.features, self.feature_blocks, self.join):
            initialise(module)

    def states(
        self, tokens: Int64[Tensor, "B T"], place: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "*places d"]:
        """The joint state after each position, [B, T, d]; with ``place`` after that one of each row alone, [B, d]."""
        distinct, back = tokens.unique(return_inverse=True)
        is_start = distinct == self.n_items
        known = self.features(distinct.masked_fill(is_start, 0))
        known = torch.where(is_start[:, None], self.start, known)
        x = known[back] + self.position.weight[: tokens.shape[1]]
        x = through(self.feature_blocks, F.dropout(x, self.dropout, self.training), place)
        joint: Tensor = self.join(torch.cat([super().states(tokens, place), self.feature_norm(x)], dim=-1))
        return joint


class Fdsa(Sasrec):
    """A fitted FDSA."""

    kind: ClassVar[str] = "fdsa"

    @classmethod
    def build(cls, space: Workspace, settings: TransformerSettings) -> FdsaNetwork:
        """An untrained network over what the catalogue says of its items.

        Raises:
            NotApplicableError: it says nothing of what the settings ask for.
        """
        if not isinstance(settings, FdsaConfig):
            raise TypeError(f"settings of {type(settings).__name__} in place of FdsaConfig")
        asked = settings.features
        categories = space.categories
        n_categories = len(categories.names) if asked != "text" else 0
        text = said_of(space) if asked != "categories" else None
        if not n_categories and text is None:
            raise NotApplicableError(
                {
                    "both": "items have neither categories nor texts that tell them apart",
                    "categories": "no item has a category",
                    "text": "items have no texts that tell them apart",
                }[asked],
                expected="features beside the item itself",
            )
        features = FeatureAttention(categories.of, n_categories, text, settings.hidden_size)
        return FdsaNetwork(space.prepared.log.n_items, settings, features)


def said_of(space: Workspace) -> Array | None:
    """The items' embeddings, centred on those of the training period and of length 1 on average, float32 [items, d].

    A row of zeros stays one. None where they do not tell items of the training period apart.
    """
    rows = space.embeddings.astype(np.float64)
    known = np.asarray(rows.any(axis=1))
    learned = rows[known & space.trained_items]
    if len(learned) == 0 or np.ptp(learned, axis=0).max() < 1e-6:
        return None
    centred = (rows - learned.mean(axis=0)) * known[:, None]
    result: Array = (centred / np.linalg.norm(centred[known & space.trained_items], axis=1).mean()).astype(np.float32)
    return result

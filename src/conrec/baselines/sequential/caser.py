"""Caser on dislikes: convolutions over each user's last dislikes, and a vector of the user's own.

Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding (Tang and Wang, WSDM 2018,
arXiv 1809.07426), with these departures:

* the loss is the cross-entropy over the whole catalogue for each of the next T dislikes, not binary cross-entropy
  against sampled items;
* a user without dislikes in the training period has no vector, and the convolutions answer alone; to that end the
  vector is left out of training examples at random as well;
* a start token stands before the first dislike, for users without any; what is missing of a window before it is zero;
* the output vectors of the convolutions' part are the items' input embeddings;
* scores are computed in double precision, so that a query's answer does not depend on the queries in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.baselines.sequences.blocks import initialise
from conrec.baselines.sequences.histories import Histories
from conrec.baselines.sequences.learning import learn, seeded, start_at_popularity, validation_fhr
from conrec.baselines.sequences.scorer import SequenceNetwork, SequenceScorer
from conrec.baselines.sequences.stretches import Stretch, stretches_of
from conrec.logs.log import Log
from conrec.protocol import NEGATIVE
from conrec.recommender import Queries
from conrec.seeds import generator
from conrec.settings.baselines.sequential import CaserConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "Caser", "CaserNetwork", "Windows", "windows_of"]

SPACE: dict[str, tuple[float | int, ...]] = {
    "hidden_size": (32, 64),
    "max_length": (3, 5, 9),
    "horizontal": (4, 16),
    "dropout": (0.2, 0.5),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""
_Caser = TypeVar("_Caser", bound="Caser")
NOBODY = -1
"""A user without a vector."""


class CaserNetwork(SequenceNetwork):
    """From the last L tokens and a user to a score for every item.

    Token ``n_items`` is the start of a sequence; -1 is nothing, a vector of zeros.

    Args:
        n_items: size of the catalogue.
        user_ids: of the users that have a vector, in its order.
        settings: of the row.
    """

    signs = (NEGATIVE,)

    def __init__(self, n_items: int, user_ids: tuple[str, ...], settings: CaserConfig) -> None:
        super().__init__()
        width, length = settings.hidden_size, settings.max_length
        self.n_items, self.max_length, self.dropout = n_items, length, settings.dropout
        self.row = {user: row for row, user in enumerate(user_ids)}
        self.item = nn.Embedding(n_items + 1, width)
        self.user = nn.Embedding(max(1, len(user_ids)), width)
        self.taste = nn.Embedding(n_items, width)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.horizontal = nn.ModuleList(
            nn.Conv1d(width, settings.horizontal, height) for height in range(1, length + 1)
        )
        self.vertical = nn.Linear(length, settings.vertical, bias=False)
        self.mix = nn.Linear(settings.horizontal * length + settings.vertical * width, width)
        initialise(self)

    def window_vector(self, window: Int64[Tensor, "rows L"]) -> Float[Tensor, "rows d"]:
        """z of equation 10: what the convolutions make of the last L tokens, oldest first."""
        seen = (window >= 0)[:, :, None]
        events = self.item(window.clamp(min=0)) * seen
        across = events.transpose(1, 2)
        horizontal = [F.relu(filters(across)).amax(dim=2) for filters in self.horizontal]
        vertical = self.vertical(across).transpose(1, 2).flatten(1)
        found = F.dropout(torch.cat([*horizontal, vertical], dim=1), self.dropout, self.training)
        return F.relu(self.mix(found))

    def forward(self, window: Int64[Tensor, "rows L"], user: Int64[Tensor, " rows"]) -> Float[Tensor, "rows items"]:
        """Score of every item (equation 11); ``user`` is the row of his vector, -1 for nobody."""
        z = F.dropout(self.window_vector(window), self.dropout, self.training)
        known = (user >= 0)[:, None]
        person = F.dropout(self.user(user.clamp(min=0)) * known, self.dropout, self.training)
        return z @ self.item.weight[: self.n_items].T + person @ self.taste.weight.T + self.bias

    def answer(self, histories: Histories) -> Float[Tensor, "B items"]:
        """Scores after the last events; `Histories.user` holds the rows of the users' vectors."""
        windows = [
            window_of(items[:length].numpy(), self.n_items, self.max_length)
            for items, length in zip(histories.item, histories.length.tolist(), strict=True)
        ]
        scores: Tensor = self(torch.from_numpy(np.stack(windows)), histories.user)
        return scores


def window_of(items: Array, start: int, length: int) -> Array:
    """The last ``length`` tokens of a start token and items, int64 [length], -1 before them where they are fewer.

    >>> window_of(np.array([4, 5]), 9, 4).tolist(), window_of(np.array([4, 5]), 9, 2).tolist()
    ([-1, 9, 4, 5], [4, 5])
    """
    tokens = np.r_[start, items][-length:]
    window: Array = np.r_[np.full(length - len(tokens), -1), tokens].astype(np.int64)
    return window


@dataclass(frozen=True, slots=True)
class Windows:
    """Training examples.

    Attributes:
        user: int64 [N], row of the user's vector.
        window: int64 [N, L], tokens, see `CaserNetwork`.
        target: int64 [N, T], the next items, nearest first, -1 behind a history's end.
    """

    user: Array
    window: Array
    target: Array

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: Array) -> Windows:
        """The examples at the given rows."""
        return Windows(self.user[rows], self.window[rows], self.target[rows])


def windows_of(log: Log, histories: list[Stretch], length: int, targets: int) -> Windows:
    """A window before every target of every history.

    Args:
        log: of the training period.
        histories: of each user with a vector, in their order.
        length: L, tokens of a window.
        targets: T, items that are asked for behind each.
    """
    users, windows, asked = [], [], []
    for user, history in enumerate(histories):
        items = log.item[history.events]
        for position in np.flatnonzero(history.target):
            users.append(user)
            windows.append(window_of(items[max(0, position - length) : position], log.n_items, length))
            following = items[position : position + targets]
            asked.append(np.r_[following, np.full(targets - len(following), -1)])
    return Windows(np.array(users), np.stack(windows), np.stack(asked).astype(np.int64))


class Caser(SequenceScorer):
    """A fitted Caser."""

    network: CaserNetwork
    kind: ClassVar[str] = "caser"

    @classmethod
    def build(cls, space: Workspace, settings: Any) -> CaserNetwork:
        """An untrained network; users with a negative event in the training period have a vector."""
        log = space.training_log
        known = np.flatnonzero(log.negative_counts()[0])
        return CaserNetwork(log.n_items, tuple(log.user_ids[user] for user in known), settings)

    @classmethod
    def fit(cls: type[_Caser], space: Workspace, name: str) -> _Caser:
        """Train on the negatives of the training period and keep the state with the best validation FHR@20.

        Raises:
            DataError: nobody disliked anything in the training period.
        """
        settings: CaserConfig = cls.settings_of(space, name)
        seed, log = space.seed(name), space.training_log

        def batches(epoch: int) -> list[Windows]:
            # Whole histories, each of a user with a vector, in the order of the users.
            histories = stretches_of(log, len(log), (NEGATIVE,), generator(seed, "ties", epoch))
            windows = windows_of(log, histories, settings.max_length, settings.targets)
            order = generator(seed, "order", epoch).permutation(len(windows))
            size = settings.batch_size
            return [windows.select(order[begin : begin + size]) for begin in range(0, len(order), size)]

        with seeded(space.seed(name, "weights")):
            network = cls.build(space, settings)
            start_at_popularity(network.bias, log.negative_counts()[1])

            def loss_of(batch: Windows) -> Float[Tensor, ""]:
                user, target = torch.from_numpy(batch.user), torch.from_numpy(batch.target)
                user = user.masked_fill(torch.rand(len(user)) < settings.user_dropout, NOBODY)
                chances = F.log_softmax(network(torch.from_numpy(batch.window), user), dim=1)
                return -(chances.gather(1, target.clamp(min=0)) * (target >= 0)).sum()

            best, curve = learn(
                network,
                batches,
                loss_of,
                lambda batch: int((batch.target >= 0).sum()),
                settings,
                lambda state: validation_fhr(cls(state, settings), space),
                name,
            )
        return cls(best, settings, curve)

    def read(self, log: Log, queries: Queries) -> Histories:
        """Histories whose users are rows of the network's vectors, -1 for who has none."""
        histories = SequenceScorer.read(self, log, queries)
        rows = [self.network.row.get(log.user_ids[user], NOBODY) for user in queries.user]
        return replace(histories, user=torch.tensor(rows, dtype=torch.int64))

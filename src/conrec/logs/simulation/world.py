"""What is true on the platform: its items, and what every user thinks of each of them on every day.

The utility of item i for user u on day x of ``days`` is::

    a_u(x, c_i) + style * <w_u, e_i> / sqrt(STYLE_DIM) + q_i
    a_u(x, c)   = begin_uc + drift * x / days * (end_uc - begin_uc)

with the category c_i, style e_i and quality q_i of the item, and the user's taste a (above 0 for the categories that
he likes, below 0 for those that he dislikes, 0 for the many between) and w. Nothing here depends on what the
recommender does, and every utility can be computed again at any time from the settings.

Users are drawn in blocks of `BLOCK`, each from its own seed, so that a world of the first n users is the same
whatever comes after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from conrec.arrays import Array
from conrec.protocol import DAY
from conrec.seeds import generator
from conrec.settings.simulation import SimulationConfig

__all__ = ["BLOCK", "STYLE_DIM", "Catalogue", "People", "World", "blocks", "draw_world", "mean_events"]

BLOCK = 4096
"""Users of a block: what is drawn and simulated at once, and what has a seed of its own."""
STYLE_DIM = 8
QUALITY = 0.3
"""Standard deviation of q."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The items.

    Attributes:
        category: int32 [items].
        style: float32 [items, STYLE_DIM], entries of variance 1.
        quality: float32 [items], the same for all users.
        reach: float32 [items], above 0: how widely an item is found before anybody reacted to it.
        arrival: int32 [items], day on which it can first be shown; not above 0 for those of the first day.
    """

    category: Array
    style: Array
    quality: Array
    reach: Array
    arrival: Array


@dataclass(frozen=True, slots=True)
class People:
    """The users.

    Attributes:
        category: int32 [users, liked + disliked], distinct; the liked ones first.
        begin: float32 [users, liked + disliked], taste on the first day.
        end: float32 of the same shape, where the taste moves to.
        style: float32 [users, STYLE_DIM].
        presses: float32 [users], in 0 to 1: how readily a user presses the button for what he dislikes.
    """

    category: Array
    begin: Array
    end: Array
    style: Array
    presses: Array


@dataclass(frozen=True, slots=True)
class World:
    """Items and users with their true tastes; see the module for the formula."""

    config: SimulationConfig
    catalogue: Catalogue
    people: People

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.people.presses)

    def day_of(self, timestamp: Array) -> Array:
        """Day of the log on which each timestamp falls, from 0; tastes are those of a day."""
        return np.asarray(np.clip((timestamp - self.config.start) // DAY, 0, self.config.days - 1))

    def tastes(self, users: Int[Array, " n"], day: Int[Array, " n"]) -> Float32[Array, "n categories"]:
        """Taste of each user for each category on the given days, float32 [n, categories]."""
        people = self.people
        share = np.float32(self.config.drift) * (day / self.config.days).astype(np.float32)[:, None]
        begin = people.begin[users]
        taste = np.zeros((len(users), self.config.categories), dtype=np.float32)
        np.put_along_axis(taste, people.category[users], begin + share * (people.end[users] - begin), axis=1)
        return taste

    def utilities_of_all(self, users: Int[Array, " n"], day: Int[Array, " n"]) -> Float32[Array, "n items"]:
        """Utility of every item, float32 [n, items], also of those that are not there yet."""
        items = self.catalogue
        own = np.float32(self.config.style / STYLE_DIM**0.5) * self.people.style[users]
        found: Array = np.take(self.tastes(users, day), items.category, axis=1)
        found += own @ items.style.T
        found += items.quality
        return found

    def utilities(self, taste: Array, row: Array, users: Array, items: Array) -> Array:
        """Utility of one item for one user each.

        Args:
            taste: float32 [rows, categories], of `tastes`.
            row: int [n], line of ``taste`` of each user.
            users: int [n].
            items: int [n].

        Returns:
            float32 [n].
        """
        catalogue = self.catalogue
        own = np.einsum("nd,nd->n", self.people.style[users], catalogue.style[items])
        own *= np.float32(self.config.style / STYLE_DIM**0.5)
        own += taste[row, catalogue.category[items]]
        own += catalogue.quality[items]
        return np.asarray(own)


def blocks(users: int) -> list[tuple[int, int]]:
    """First user and the one after the last of each block."""
    return [(begin, min(begin + BLOCK, users)) for begin in range(0, users, BLOCK)]


def draw_world(config: SimulationConfig, users: int | None = None) -> World:
    """The world of some settings; of its first ``users`` alone where that is given."""
    return World(config, _catalogue(config), _people(config, config.users if users is None else users))


def mean_events(config: SimulationConfig) -> float:
    """Exposures of the mean user."""
    return config.events / config.users


def _catalogue(config: SimulationConfig) -> Catalogue:
    random = generator(config.seed, "simulation", "items")
    n = config.items
    size = _falling(config.categories)
    category = random.choice(config.categories, n, p=size)
    late = np.flatnonzero(random.random(n) < config.new_items)
    arrival = -random.integers(0, 60, n)
    arrival[late] = random.integers(1, config.days, len(late))
    if not (arrival <= 0).any():
        arrival[0] = 0  # the first day needs something to show
    return Catalogue(
        category.astype(np.int32),
        random.standard_normal((n, STYLE_DIM), dtype=np.float32),
        np.float32(QUALITY) * random.standard_normal(n, dtype=np.float32),
        np.exp(np.float32(config.reach_spread) * random.standard_normal(n, dtype=np.float32)),
        arrival.astype(np.int32),
    )


def _falling(n: int) -> Array:
    """Shares that fall with the rank, float64 [n], sum 1."""
    share = np.arange(1, n + 1) ** -0.5
    return np.asarray(share / share.sum())


def _people(config: SimulationConfig, users: int) -> People:
    random = generator(config.seed, "simulation", "segments")
    shape = (config.segments, config.categories)
    liking, aversion = (2.0 * random.standard_normal(shape) for _ in range(2))
    parts = [_block(config, number, end - begin, liking, aversion) for number, (begin, end) in enumerate(blocks(users))]
    return People(*(np.concatenate([getattr(part, name) for part in parts]) for name in People.__slots__))


def _block(config: SimulationConfig, number: int, users: int, liking: Array, aversion: Array) -> People:
    """The users of one block. All `BLOCK` of them are drawn and the first are kept, so that fewer are the same."""
    random = generator(config.seed, "simulation", "users", number)
    segment = random.integers(config.segments, size=BLOCK)
    share = config.segment_share
    # The largest of weight + Gumbel noise: a draw without replacement in proportion to exp(weight).
    like = share * liking[segment] + random.gumbel(size=(BLOCK, config.categories))
    averse = share * aversion[segment] + random.gumbel(size=(BLOCK, config.categories))
    liked = np.argsort(-like, axis=1, kind="stable")[:, : config.liked]
    np.put_along_axis(averse, liked, -np.inf, axis=1)
    disliked = np.argsort(-averse, axis=1, kind="stable")[:, : config.disliked]
    sign = np.repeat(np.asarray([1, -1], dtype=np.float32), [config.liked, config.disliked])
    begin, end = (
        sign * (np.float32(0.3) + random.exponential(1.0, (BLOCK, len(sign))).astype(np.float32)) for _ in "be"
    )
    return People(
        np.concatenate([liked, disliked], axis=1).astype(np.int32)[:users],
        begin[:users],
        end[:users],
        random.standard_normal((BLOCK, STYLE_DIM), dtype=np.float32)[:users],
        random.beta(0.8, 1.2, BLOCK).astype(np.float32)[:users],
    )

"""The platform's own recommender: what it knows of its users, what it shows them, what it holds back.

Once a day it fills every visitor's feed, in two steps as large platforms do:

1. **Retrieval**: categories are drawn from the user's category profile and from how strong each category is, items
   within them by reach, freshness and the positives they got; a share (``exploration``) is drawn from the whole
   catalogue, whatever is known.
2. **Ranking**: by the profiles of category and style and by the item's popularity. The items that were drawn to
   explore stand first, the best of the others follow.

It learns from the reactions that it sees and from nothing else. What was disliked is **suppressed**: the item is never
shown to this user again, and his profile moves away from its category and from items like it, so that both are shown
less, which also keeps the log from telling how much the user dislikes them. All of a day's feeds are made of what was
known in the evening before.
"""

from __future__ import annotations

import numpy as np

from conrec.arrays import Array
from conrec.logs.simulation.seen import Seen
from conrec.logs.simulation.world import STYLE_DIM, World
from conrec.protocol import NEGATIVE, POSITIVE

__all__ = ["Recommender"]

POOL = 3
"""Items retrieved for each that is shown."""
PROFILE_LIMIT = 5.0
"""Bound of a profile's entries: of logits, so that no category vanishes altogether."""
FRESH_DAYS = 20.0
POPULARITY = 0.7
"""Exponent of the positives in retrieval."""
FORGOTTEN_A_DAY = 0.1
"""Share of an item's popularity that goes every day."""
RANKING_NOISE = 0.3


class Recommender:
    """State of the recommender: profiles of users, popularity of items.

    Args:
        world: the platform; of its truth the recommender reads only what any platform knows: categories, styles,
            reach and arrival of items.
        exposures: int64 [users], what each user will get, for the size of `Seen`.
    """

    def __init__(self, world: World, exposures: Array) -> None:
        self.config, self.items = world.config, world.catalogue
        self.profile = np.zeros((world.n_users, self.config.categories), dtype=np.float32)
        self.style = np.zeros((world.n_users, STYLE_DIM), dtype=np.float32)
        self.seen = Seen(exposures)
        self.popularity = np.zeros(self.config.items)
        self.today = np.zeros(self.config.items, dtype=np.int64)
        self.day = -1
        self.order = np.argsort(self.items.category, kind="stable")
        self.stop = np.cumsum(np.bincount(self.items.category, minlength=self.config.categories))

    def open_day(self, day: int) -> None:
        """Weigh the items that are there on this day, by the popularity of the days before.

        Popularity is taken in units of its mean, so that platforms of any size work alike.
        """
        self.day, items = day, self.items
        self.live = np.flatnonzero(items.arrival <= day)
        mean = self.popularity[self.live].mean()
        popularity = self.popularity / mean if mean > 0 else self.popularity
        weight = items.reach * (1.0 + popularity) ** POPULARITY
        weight *= 0.1 + np.exp(-np.maximum(day - items.arrival, 0) / FRESH_DAYS)
        weight[items.arrival > day] = 0.0
        self.cumulated = np.cumsum(weight[self.order])
        ends = np.concatenate([[0.0], self.cumulated])[np.concatenate([[0], self.stop])]
        self.base, self.strength = ends[:-1], np.diff(ends)
        with np.errstate(divide="ignore"):
            self.log_strength = 0.5 * np.log(self.strength)  # -inf: nothing of this category is there
        self.log_popularity = (0.3 * np.log1p(popularity)).astype(np.float32)

    def feed(self, random: np.random.Generator, users: Array, shown: Array) -> tuple[Array, Array]:
        """What each user is shown today.

        Args:
            random: the draw.
            users: int64 [rows], distinct.
            shown: int64 [rows], how many exposures each is to get.

        Returns:
            row (index into ``users``) and item of each exposure, int64 [n] both, row after row and within a row in
            the order of showing; distinct items in a row. Fewer than asked for where the catalogue has no more that
            the user has not seen.
        """
        row, item, score = self._scored(users, *self._retrieved(random, users, shown), random)
        missing = shown - np.bincount(row, minlength=len(users))
        if (missing > 0).any():
            # A user who has seen most of what he is drawn to: the rest comes from the whole catalogue.
            more = np.repeat(np.arange(len(users)), np.where(missing > 0, 6 * missing + 16, 0))
            other = self.live[random.integers(0, len(self.live), len(more))]
            row, item, score = self._scored(
                users,
                np.concatenate([row, more]),
                np.concatenate([item, other]),
                np.concatenate([score, np.full(len(more), -np.inf, dtype=np.float32)]),
                random,
            )
        # One sort by row and falling score: scores lie well within the distance of two rows.
        best = np.argsort(row * 1000.0 - np.clip(score, -400, 400), kind="stable")
        row, item = row[best], item[best]
        counts = np.bincount(row, minlength=len(users))
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = place < shown[row]
        return row[kept], item[kept]

    def learn(self, users: Array, items: Array, feedback: Array) -> None:
        """Take in the reactions to some exposures, int [n] each; `close_day` makes them known."""
        config = self.config
        gone = feedback == NEGATIVE if config.returning else np.ones(len(users), dtype=np.bool_)
        self.seen.add(users[gone], items[gone])
        reacted = feedback != 0
        users, items, feedback = users[reacted], items[reacted], feedback[reacted]
        self.today += np.bincount(items[feedback == POSITIVE], minlength=config.items)
        step = np.where(feedback == POSITIVE, config.learning, -config.suppression).astype(np.float32)
        np.add.at(self.profile, (users, self.items.category[items]), step)
        np.add.at(self.style, users, (0.1 * step)[:, None] * self.items.style[items])

    def close_day(self) -> None:
        """Make the day's reactions known, and forget a little of what is older."""
        self.popularity *= 1 - FORGOTTEN_A_DAY
        self.popularity += self.today
        self.today[:] = 0
        keep = np.float32(1 - self.config.forgetting)
        for known in (self.profile, self.style):
            np.multiply(known, keep, out=known)
            np.clip(known, -PROFILE_LIMIT, PROFILE_LIMIT, out=known)

    def _retrieved(self, random: np.random.Generator, users: Array, shown: Array) -> tuple[Array, Array, Array]:
        """Row, item and bonus of what is retrieved; the bonus puts what explores first."""
        explored = random.binomial(shown, self.config.exploration)
        pool = POOL * (shown - explored) + 6
        row = np.repeat(np.arange(len(users)), pool)
        logits = self.profile[users] + self.log_strength
        logits -= logits.max(axis=1, keepdims=True)
        share = np.cumsum(np.exp(logits), axis=1)
        share /= share[:, -1:]
        # Rows one after another are one rising array: row r lies in r to r + 1.
        flat = (share + np.arange(len(users))[:, None]).ravel()
        drawn = np.searchsorted(flat, row + random.random(len(row)), side="right")
        category = np.minimum(drawn - row * self.config.categories, self.config.categories - 1)
        mass = self.base[category] + random.random(len(row)) * self.strength[category]
        place = np.searchsorted(self.cumulated, mass, side="right")
        item = self.order[np.minimum(place, len(self.order) - 1)]
        other = np.repeat(np.arange(len(users)), explored)
        free = self.live[random.integers(0, len(self.live), len(other))]
        bonus = np.repeat(np.asarray([0, 100], dtype=np.float32), [len(row), len(other)])
        return np.concatenate([row, other]), np.concatenate([item, free]), bonus

    def _scored(
        self, users: Array, row: Array, item: Array, bonus: Array, random: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """Distinct items that are there and not held back, with their scores; row after row."""
        key = row * self.config.items + item
        best = np.argsort(key, kind="stable")  # of an item that was drawn twice the first stays
        key = key[best]
        best = best[np.concatenate([[True], key[1:] != key[:-1]])] if len(key) else best
        row, item, bonus = row[best], item[best], bonus[best]
        user = users[row]
        there = ~self.seen.holds(user, item) & (self.items.arrival[item] <= self.day)
        row, item, bonus, user = row[there], item[there], bonus[there], user[there]
        score = np.einsum("nd,nd->n", self.style[user], self.items.style[item])
        score += self.profile[user, self.items.category[item]]
        score += self.log_popularity[item] + bonus
        score += np.float32(RANKING_NOISE) * random.standard_normal(len(score), dtype=np.float32)
        return row, item, score

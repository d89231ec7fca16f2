"""Settings of the baselines that count and look up neighbours.

The defaults were chosen by validation FHR@20 on MovieLens-100K and MovieTweetings together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conrec.settings.base import Positive, Rate, Settings

__all__ = [
    "CategoryRuleConfig",
    "EaseConfig",
    "ItemKnnAllConfig",
    "ItemKnnConfig",
    "NearestItemConfig",
    "PopularityConfig",
    "UserKnnConfig",
]

Weight = Annotated[float, Field(allow_inf_nan=False)]
Power = Annotated[float, Field(ge=0, le=2)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PopularityConfig(Settings):
    """Live popularity of dislikes."""

    days: Positive = 30
    half_life_days: Rate = 7.0


class ItemKnnConfig(Settings):
    """Item-kNN from the dislikes of a history to dislikes."""

    neighbours: Positive = 500
    """Items that each item keeps, the most similar."""
    source_power: Power = 0.5
    """Of the number of users of the item that leads."""
    target_power: Power = 0.25
    """Of the number of dislikes of the item that is led to; smaller leaves popular dislikes more of their weight. Both
    at 0.5 without shrinkage: the cosine."""
    shrinkage: NotNegative = 5.0
    """Is added to the denominator: similarities that rest on few users shrink."""
    popularity: NotNegative = 3.0
    """Weight of the item to which everybody has reacted, the item bias; 0: none."""
    training_half_life_days: Rate | None = 20.0
    """A dislike of the training period weighs half so many days before its end; None: age does not matter."""
    half_life_days: Rate | None = None
    """An event of a history weighs half after so many days; None: age does not matter."""

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of a negative, a neutral and a positive event; one of weight 0 is not read."""
        return 1.0, 0.0, 0.0


class ItemKnnAllConfig(ItemKnnConfig):
    """Item-kNN from all events of a history to dislikes."""

    neutral: Weight = 1.0
    """Weight of what a neutral event leads to; a dislike's is 1."""
    positive: Weight = 1.0
    """Weight of what a like leads to."""

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of a negative, a neutral and a positive event; one of weight 0 is not read."""
        return 1.0, self.neutral, self.positive


class UserKnnConfig(Settings):
    """User-kNN on signed feedback."""

    neighbours: Positive = 1000
    """Users whose dislikes count, the most similar."""
    shrinkage: NotNegative = 0.0
    """Is added to the denominator of the cosine: users with few events become less similar."""
    neutral: NotNegative = 1.0
    """Weight of a neutral event, or of an exposure without a reaction; a dislike's is 1, and 0 is not read."""
    positive: NotNegative = 1.0
    """Weight of a like."""
    popularity: NotNegative = 100.0
    """Weight of the mean of all users' dislikes, the item bias; 0: none."""
    training_half_life_days: Rate | None = 20.0
    """A dislike of the training period weighs half so many days before its end; None: age does not matter."""
    half_life_days: Rate | None = None
    """An event of a history weighs half after so many days; None: age does not matter."""

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of a negative, a neutral and a positive event."""
        return 1.0, self.neutral, self.positive


class EaseConfig(Settings):
    """EASE from signed feedback to dislikes."""

    regularisation: Rate = 5000.0
    """λ, on the squares of the weights, the item bias among them."""
    neutral: Weight = 0.0
    """Of a neutral event in the input; a dislike's is 1."""
    positive: Weight = -0.5
    """Of a like in the input."""
    intercept: bool = True
    """Whether one more input is 1 for everybody: the item bias."""
    training_half_life_days: Rate | None = 20.0
    """A dislike of the training period weighs half so many days before its end; None: age does not matter."""
    half_life_days: Rate | None = None
    """An event of a history weighs half after so many days; None: age does not matter."""
    max_items: Positive = 4000
    """A larger catalogue is cut to the items with the most events."""

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of a negative, a neutral and a positive event."""
        return 1.0, self.neutral, self.positive


class CategoryRuleConfig(Settings):
    """The category rule."""

    rule: Literal["block", "share"] = "share"
    """`block`: items of blocked categories first; `share`: popularity times how much more often the user's dislikes
    fall into a category than everybody's."""
    order: Literal["live", "count"] = "live"
    """Popularity: live, or the dislikes of the training period."""
    blocked_after: Positive = 5
    """Dislikes after which `block` blocks a category; each is halved with age."""
    smoothing: Rate = 300.0
    """Dislikes of everybody that `share` adds to the user's."""
    half_life_days: Rate | None = None
    """A dislike weighs half after so many days; None: age does not matter."""


class NearestItemConfig(Settings):
    """The nearest items by embedding."""

    neighbours: Positive = 500
    """Items that each item keeps, the nearest."""
    popularity_power: Power = 1.0
    """Of the number of dislikes of an item, plus 1; 0: the bare neighbourhood."""
    training_half_life_days: Rate | None = 20.0
    """A dislike of the training period weighs half so many days before its end; None: age does not matter."""
    half_life_days: Rate | None = None
    """A dislike of a history weighs half after so many days; None: age does not matter."""

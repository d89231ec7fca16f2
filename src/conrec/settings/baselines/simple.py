"""Settings of the baselines that count and look up neighbours."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from conrec.settings.base import Positive, Rate, Settings

__all__ = [
    "CategoryRuleConfig",
    "EaseConfig",
    "ItemKnnAllConfig",
    "ItemKnnConfig",
    "NearestItemConfig",
    "PopularityConfig",
    "SignedHistory",
    "UserKnnConfig",
]

Weight = Annotated[float, Field(allow_inf_nan=False)]
Power = Annotated[float, Field(ge=0, le=2)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PopularityConfig(Settings):
    """Live popularity of dislikes."""

    days: Positive = 30
    half_life_days: Rate = 7.0


class SignedHistory(Settings):
    """How much each event of a history weighs."""

    negative: Weight = 1.0
    """Weight of a dislike."""
    neutral: Weight = 0.0
    """Weight of a neutral event, or of an exposure without a reaction; 0: not read."""
    positive: Weight = 0.0
    """Weight of a like; 0: not read."""
    half_life_days: Rate | None = None
    """An event of a history weighs half after so many days; None: age does not matter."""

    @property
    def weights(self) -> tuple[float, float, float]:
        """Of a negative, a neutral and a positive event."""
        return self.negative, self.neutral, self.positive


class ItemKnnConfig(Settings):
    """Item-kNN from the dislikes of a history to dislikes."""

    neighbours: Positive = 200
    """Items that each item keeps, the most similar."""
    source_power: Power = 0.5
    """Of the number of users of the item that leads."""
    target_power: Power = 0.5
    """Of the number of dislikes of the item that is led to; smaller leaves popular dislikes more of their weight. Both
    at 0.5 without shrinkage: the cosine."""
    shrinkage: NotNegative = 0.0
    """Is added to the denominator: similarities that rest on few users shrink."""
    half_life_days: Rate | None = None
    """An event of a history weighs half after so many days; None: age does not matter."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of an event by its sign; what is not here is not read."""
        return {"negative": 1.0}


class ItemKnnAllConfig(ItemKnnConfig):
    """Item-kNN from all events of a history to dislikes."""

    neutral: Weight = 1.0
    """Weight of what a neutral event leads to; a dislike's is 1."""
    positive: Weight = 1.0
    """Weight of what a like leads to."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of an event by its sign; what is not here is not read."""
        every = {"negative": 1.0, "neutral": self.neutral, "positive": self.positive}
        return {sign: weight for sign, weight in every.items() if weight}


class UserKnnConfig(SignedHistory):
    """User-kNN on signed feedback."""

    neighbours: Positive = 200
    """Users whose dislikes count, the most similar."""
    shrinkage: NotNegative = 0.0
    """Is added to the denominator of the cosine: users with few events become less similar."""
    power: Power = 1.0
    """Of the similarity, as the weight of a neighbour's dislikes."""


class EaseConfig(SignedHistory):
    """EASE from signed feedback to dislikes."""

    regularisation: Rate = 200.0
    """λ, on the squares of the weights."""
    max_items: Positive = 6000
    """A larger catalogue is cut to the items with the most events."""

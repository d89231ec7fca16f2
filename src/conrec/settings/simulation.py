"""Settings of the simulated platform (`conrec.logs.simulation`)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from conrec.settings.base import Positive, Settings

__all__ = ["SimulationConfig"]

Part = Annotated[float, Field(ge=0, le=1)]
AtLeastZero = Annotated[float, Field(ge=0)]


class SimulationConfig(Settings):
    """A platform, its users and its recommender; the log that comes of them is decided by these values alone."""

    users: Positive = 2_000
    items: Positive = 2_000
    """Of the whole log; some of them arrive while it runs."""
    categories: Annotated[int, Field(ge=2, le=4096)] = 64
    """What tastes are about: each item has one category, and a user's true interests are categories."""
    events: Positive = 200_000
    """Exposures, each with its reaction: 0, -1 or +1. Presses that are undone come on top."""
    days: Annotated[int, Field(ge=2, le=3650)] = 90
    start: Annotated[int, Field(ge=0, le=4_000_000_000)] = 1_704_067_200
    """First second of the log (UTC); the default is 2024-01-01."""
    seed: int = 0

    liked: Positive = 8
    """Categories that a user likes."""
    disliked: Positive = 8
    """Categories that a user has a true aversion to; what lies between liked and disliked is the neutral zone."""
    drift: Part = 0.3
    """How far tastes move from the first day to the last: 0 stay, 1 end at another draw of their strengths."""
    segments: Positive = 24
    """Groups of users whose tastes are drawn alike."""
    segment_share: Part = 0.7
    """How much of a user's taste is that of his segment; the rest is drawn by himself."""
    style: AtLeastZero = 0.5
    """Weight of what is particular to an item, within its category, in a user's judgement."""
    noise: AtLeastZero = 0.8
    """Standard deviation of a reaction's chance, in units of utility."""

    activity_spread: AtLeastZero = 1.0
    """Sigma of the log-normal of users' activity; 0: all are alike."""
    session_length: Annotated[float, Field(ge=1)] = 12.0
    """Mean exposures of a session."""
    newcomers: Part = 0.4
    """Share of users who arrive after the first day."""
    new_items: Part = 0.5
    """Share of items that arrive after the first day."""
    reach_spread: AtLeastZero = 1.2
    """Sigma of the log-normal of items' reach, that is of how often they are found before anybody reacted."""

    positive_share: Annotated[float, Field(gt=0, le=0.5)] = 0.15
    """Share of exposures that get a positive reaction."""
    positives_per_negative: Annotated[float, Field(ge=1)] = 5.0
    """Positives for each negative that stays in the log (paper: sequences 3 to 5 times as long); the thresholds of
    the reactions are calibrated to it on a pilot of some users."""
    pilot_events: Positive = 1_000_000
    """Size of the pilot; the log itself is never changed to meet a share."""
    off_topic: Part = 0.1
    """Share of the negatives that say nothing about taste: already bought, clickbait, counterfeit, AI image."""
    reasons: Part = 0.5
    """Share of the negatives that come with a reason."""
    undone: Part = 0.0
    """Presses by mistake, undone within ten minutes, for each negative that stays."""

    exploration: Part = 0.1
    """Share of what the recommender draws from the whole catalogue, whatever it knows."""
    learning: AtLeastZero = 0.6
    """How much a positive reaction moves the recommender towards its category and style."""
    suppression: AtLeastZero = 2.0
    """How much a dislike moves the recommender away from its category and style; 0: the disliked item alone goes."""
    forgetting: Part = 0.02
    """Share of what the recommender knows about a user that it forgets a day."""
    returning: bool = False
    """Whether an item that a user has seen may be shown to him again; one that he disliked never is."""

    truth_days: Positive = 30
    """The truth is written of the first day and of every so many days after it; see also `read_world`."""
    truth_items: Annotated[int, Field(ge=0)] = 20
    """Items of each user's truth, those of his strongest aversion first; 0: categories alone, which costs less."""

    @property
    def negative_share(self) -> float:
        """Share of exposures that get a negative reaction which stays."""
        return self.positive_share / self.positives_per_negative

    @model_validator(mode="after")
    def _fits_together(self) -> SimulationConfig:
        if self.liked + self.disliked > self.categories:
            raise ValueError(
                f"liked {self.liked} and disliked {self.disliked} are more than the {self.categories} categories"
            )
        if self.events < self.users:
            raise ValueError(f"events {self.events} are fewer than users {self.users}; each has at least one")
        if self.positive_share + self.negative_share > 0.6:
            raise ValueError(
                f"positive_share {self.positive_share} and positives_per_negative {self.positives_per_negative} leave "
                "less than two fifths of the exposures without a reaction"
            )
        return self

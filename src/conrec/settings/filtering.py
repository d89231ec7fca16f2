"""Settings of the filter: whose predict sets are stored, what error is allowed, and what is done with a candidate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conrec.settings.base import Positive, Settings, Share

__all__ = ["FilterConfig"]


class FilterConfig(Settings):
    """The offline filter."""

    models: tuple[str, ...] = ("most-disliked", "sasrec", "lc-rec-negatives", "conrec")
    """Rows whose predict sets are stored for every user."""
    false_filter_rate: Share = 0.05
    """Bound on the share of liked candidates that are dropped, on validation data; it sets the threshold."""
    rate: Literal["user", "pair"] = "user"
    """What that share is: "user", each user's own share, averaged over users; "pair", the share among all users' liked
    candidates, where users who like much weigh more (at most `pairs_per_user`)."""
    pairs_per_user: Positive = 20
    """With `rate` "pair", a user with more liked candidates than this weighs as one with so many: without a limit that
    is known beforehand, one more user could bring any number of false filters, and nothing could be promised."""
    guarantee: Literal["expectation", "probability"] = "expectation"
    """What is promised: that the rate is within the bound on average over draws of validation users (conformal risk
    control), or that it is so in at least `confidence` of the draws (risk-controlling prediction sets), at a price."""
    confidence: Share = 0.9
    """Share of draws of validation users in which the rate is within the bound, for `guarantee` "probability"."""
    segments: Literal["none", "category"] = "none"
    """"category": a threshold for each item category, each with the guarantee; an item of several takes the highest."""
    segment_users: Positive = 100
    """Categories of which fewer users liked something in the training period share one threshold, which has the
    guarantee for all of them together."""
    rank_weight: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Weight of each prediction as a share of that of the one before it; similarities are multiplied by it. 1: all
    count alike (paper); then a candidate that is itself predicted has the same similarity at whatever rank, and no
    bound below the share of likes among the predictions can be reached; docs/calibration.md has figures."""
    score_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much less a prediction counts whose score is lower: similarity to it times exp(score_weight * (its score -
    the best score)); 0: all count alike. Thresholds are calibrated with it."""
    half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Days after which a prediction counts half; None: it does not age. It only makes the filter drop less."""
    keep_at_least: Annotated[int, Field(ge=0)] = 0
    """Candidates of one request that are kept at least, where there are so many; the least similar come back first."""
    allow: tuple[str, ...] = ()
    """Item IDs that are never dropped."""
    dry_run: bool = False
    """Whether the filter only says what it would drop."""

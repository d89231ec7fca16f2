"""Settings of the baselines over histories that also know what an item is: its categories and its text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conrec.settings.base import Positive, Rate, Share
from conrec.settings.baselines.base import TransformerSettings

__all__ = ["FdsaConfig", "S3RecConfig"]


class FdsaConfig(TransformerSettings):
    """FDSA: a stream of items and a stream of their features, both of the sizes below."""

    features: Literal["both", "categories", "text"] = "both"
    """What of an item the second stream reads; of "both", what the catalogue has."""


class S3RecConfig(TransformerSettings):
    """S3-Rec: pretrained on four tasks, then tuned as SASRec. Sizes are of both, the schedule that of the tuning."""

    pretraining_epochs: int = Field(default=40, ge=0)
    """Passes over the pretraining sequences (paper: 100 to 150); 0: none, which leaves SASRec."""
    pretraining_events: Literal["all", "negative"] = "negative"
    """Of which feedback of the training period those sequences are. On MovieLens-100K, dislikes for 40 epochs end no
    lower on validation than all events for 10 (FHR@20 0.521 and 0.512, means of three seeds), in two thirds of the
    time."""
    pretraining_batch_size: Positive = 64
    pretraining_learning_rate: Rate = 1e-3
    pretraining_weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled (AdamW)."""
    pretraining_dropout: float = Field(default=0.2, ge=0, lt=1)
    mask_share: Share = 0.2
    """Share of a sequence's items that are hidden (paper: 0.2)."""
    aap_weight: float = Field(default=0.2, ge=0)
    """Weight of associated attribute prediction (paper: 0.2)."""
    mip_weight: float = Field(default=1.0, ge=0)
    """Weight of masked item prediction (paper: 1.0)."""
    map_weight: float = Field(default=1.0, ge=0)
    """Weight of masked attribute prediction (paper: 1.0)."""
    sp_weight: float = Field(default=0.5, ge=0)
    """Weight of segment prediction (paper: 0.5)."""

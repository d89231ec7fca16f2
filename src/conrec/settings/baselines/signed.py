"""Settings of the baselines that read both signs of feedback."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conrec.settings.base import Positive, Rate, Share
from conrec.settings.baselines.base import TrainingSettings, TransformerSettings

__all__ = ["SignedGraphConfig", "SignedSasrecConfig", "SignedSettings", "TwoTowerConfig"]

Targets = Literal["windows", "anchors", "next"]


class SignedSettings(TrainingSettings):
    """When a row over both signs is asked in training, and for what."""

    targets: Targets = "windows"
    """`windows`: asked for all dislikes of a window, from what came strictly before it, where the test would ask: where
    one of the windows that tile a user's training period opens. `anchors`: the same at every training anchor, that is
    before every dislike. `next`: asked after every event for the one dislike that comes next."""
    max_length: Positive = 100
    """Events of a history that are read, the latest; twice as many as where dislikes alone are read."""


class SignedSasrecConfig(SignedSettings, TransformerSettings):
    """SASRec over events of all signs, with a loss on what is liked instead."""

    opposite: Literal["unlikelihood", "pairwise"] = "pairwise"
    """The loss on likes: `unlikelihood`, -log(1 - p(like)), or `pairwise`, -log sigmoid(dislike - like)."""
    opposite_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss on likes; 0: none."""


class TwoTowerConfig(SignedSettings, TransformerSettings):
    """Towers over likes, dislikes and neutral events, against item vectors with content."""


class SignedGraphConfig(SignedSettings):
    """Graph convolution on the graphs of dislikes, likes and neutral events apart."""

    learning_rate: Rate = 5e-3
    """Five times that of the transformers: vectors are all that there is to learn."""
    hidden_size: Positive = 64
    layers: int = Field(default=1, ge=0)
    """Graph convolutions from items to users and back; 0: items do not learn from each other."""
    max_length: Positive = 500
    """Events of a history that are read, the latest."""
    damping: float = Field(default=0.5, ge=0, le=1)
    """A user's sum is divided by the number of events to this power: 0.5 in light graph convolution, 1: the mean."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Of what a user's events sum to."""
    folds: int = Field(default=4, ge=2)
    """Parts into which users are drawn anew in each epoch; a part is asked on the graph of all others."""
    like_weight: float = Field(default=0.1, ge=0)
    """Weight of the loss that ranks likes by interest, beside the one that ranks dislikes."""
    contrast_weight: float = Field(default=0.01, ge=0)
    """Weight of the contrast between two distortions of the graph of dislikes."""
    distortion: Share = 0.2
    """Share of the graph's edges that each distortion drops."""
    temperature: Rate = 0.2
    """Of the contrast."""

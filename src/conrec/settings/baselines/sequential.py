"""Settings of the baselines that read a history of dislikes as a sequence."""

from __future__ import annotations

from pydantic import Field

from conrec.settings.base import Positive, Settings, Share
from conrec.settings.baselines.base import TrainingSettings, TransformerSettings

__all__ = [
    "Bert4RecConfig",
    "CaserConfig",
    "ESasrecConfig",
    "GbceSettings",
    "HstuConfig",
    "SampledSoftmaxSettings",
    "SasrecConfig",
    "SasrecGbceConfig",
    "SasrecSampledConfig",
]


class SasrecConfig(TransformerSettings):
    """SASRec with full softmax, on negatives. Its values are the defaults of `TransformerSettings`: they were chosen by
    validation FHR@20 on MovieLens-100K and MovieTweetings."""


class SampledSoftmaxSettings(Settings):
    """How negatives are drawn where the loss is a softmax over the target and a sample."""

    negatives: Positive = 256
    """Items drawn for a batch."""
    popular: float = Field(default=0.5, ge=0, le=1)
    """Share of them that is drawn by how often an item was disliked; the rest is drawn uniformly."""
    log_q: bool = True
    """Whether scores are corrected for the probability of being drawn."""


class GbceSettings(Settings):
    """How negatives are drawn, and how far their rarity is made up for, in the generalised binary cross-entropy."""

    negatives: Positive = 256
    """Items drawn for a batch, uniformly (gSASRec: 256)."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """t of gSASRec (0.75): between plain binary cross-entropy and probabilities like those of the data."""


class SasrecSampledConfig(SasrecConfig, SampledSoftmaxSettings):
    """SASRec with a sampled softmax."""


class SasrecGbceConfig(SasrecConfig, GbceSettings):
    """SASRec with the generalised binary cross-entropy."""


class ESasrecConfig(SasrecConfig, SampledSoftmaxSettings):
    """eSASRec."""


class CaserConfig(TrainingSettings):
    """Caser."""

    batch_size: Positive = 512
    """Windows in a step."""
    hidden_size: Positive = 64
    max_length: Positive = 5
    """L, the dislikes that are looked at (paper: 5 on MovieLens)."""
    targets: Positive = 3
    """T, the dislikes behind them that are asked for in training (paper: 3)."""
    horizontal: Positive = 16
    """Filters over each number of successive dislikes (paper: 4 to 64)."""
    vertical: Positive = 4
    """Filters over each dimension of the embedding (paper: 1 to 16)."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    user_dropout: float = Field(default=0.5, ge=0, lt=1)
    """How often a training example has no user vector, as users have none that are new at prediction."""


class Bert4RecConfig(TransformerSettings):
    """BERT4Rec."""

    layers: Positive = 2
    """As in the paper; the masks make more of little data than the shift does."""
    epochs: Positive = 300
    patience: Positive = 30
    """Long: a showing asks for a part of a sequence alone, so that an epoch teaches less than SASRec's."""
    mask_share: Share = 0.3
    """Probability of a mask (paper: 0.2 on MovieLens, 0.4 to 0.6 elsewhere)."""
    last_share: float = Field(default=0.5, ge=0, le=1)
    """How often, instead, a sequence is cut behind a random item and that one is masked, as at prediction."""
    showings: Positive = 1
    """How often a sequence is shown in an epoch, masked anew each time: each showing asks for few of its items, so that
    an epoch over long sequences teaches little, and validation between epochs costs more than they do."""


class HstuConfig(TransformerSettings):
    """HSTU."""

    layers: Positive = 2

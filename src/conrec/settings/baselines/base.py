"""What the sections of baselines that are trained in epochs share."""

from __future__ import annotations

from pydantic import Field, model_validator

from conrec.settings.base import Positive, Rate, Settings

__all__ = ["TrainingSettings", "TransformerSettings"]


class TrainingSettings(Settings):
    """A schedule: epochs of AdamW, and the state with the best validation FHR@20 is kept."""

    epochs: Positive = 60
    patience: Positive = 8
    """Epochs without a better validation FHR@20 before training stops."""
    batch_size: Positive = 64
    learning_rate: Rate = 1e-3
    weight_decay: float = Field(default=1.0, ge=0)
    """Decoupled (AdamW); far above the usual 0.01, since dislikes are few for the size of a catalogue."""


class TransformerSettings(TrainingSettings):
    """A small transformer over a history."""

    hidden_size: Positive = 64
    layers: Positive = 1
    """One: a second layer memorises, on logs where users have a few dozen negatives at most."""
    heads: Positive = 2
    """Must divide `hidden_size`."""
    max_length: Positive = 50
    """Events of a history that are read, the latest."""
    dropout: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_fit(self) -> TransformerSettings:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads {self.heads} must divide hidden_size {self.hidden_size}")
        return self

"""Settings of the baselines that are language models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conrec.settings.base import Positive, Rate, Settings, Share

__all__ = ["InstructRecConfig", "LcRecBothConfig", "LcRecConfig", "MiniOneRecConfig", "TallRecConfig"]


class LcRecConfig(Settings):
    """LC-Rec on negatives; what is not here is as in `SftConfig`.

    A share is a number of samples in each epoch, for one stretch of history of the main task; 0 leaves a task out.
    """

    epochs: Positive = 8
    """More than on both signs, whose samples are five times as many."""
    description_share: float = Field(default=0.25, ge=0)
    """Of descriptions with semantic IDs, in both directions and with the title."""
    asymmetric_share: float = Field(default=0.25, ge=0)
    """From a history of semantic IDs to the title of the next item, and from a history of titles to its semantic ID."""
    intention_share: float = Field(default=0.25, ge=0)
    """From a described item, with a history and without, to its semantic ID."""
    preference_share: float = Field(default=0.25, ge=0)
    """From a history to the kinds that its user disliked most."""
    task_events: Positive = 20
    """At most this many events of a history, the latest, in the tasks other than the main one."""
    description_tokens: Positive = 24
    """Descriptions are cut here."""


class LcRecBothConfig(LcRecConfig):
    """LC-Rec on negatives and positives."""

    epochs: Positive = 3


class TitleSettings(Settings):
    """What the rows that read and write titles share."""

    history: Positive = 10
    """Titles of each sign that a prompt shows, the latest (TALLRec: 10 items in all)."""
    samples: Positive = 8_000
    """Training anchors that are learned from, each once, at most those there are."""
    batch_size: Positive = 16
    learning_rate: Rate = 1e-3
    evaluations: Positive = 6
    """How often the validation AUC is measured; the best state is kept."""
    ranked_cells: int = Field(default=1_000_000, ge=0)
    """Catalogue items times validation and test anchors up to which the whole catalogue is ranked, each of its titles
    being read for each anchor; above, candidates alone are scored. A million cells take minutes on two cores."""


class TallRecConfig(TitleSettings):
    """TALLRec."""

    exposed: Positive = 7
    """Items of an anchor's day that are answered with No, for the one that is answered with Yes."""
    uniform: int = Field(default=2, ge=0)
    """Items drawn from the whole catalogue that are answered with No as well."""


class InstructRecConfig(TitleSettings):
    """InstructRec."""

    matching: Share = 0.3
    """Share of the samples without a list of candidates, whose answer is any title of the catalogue: the task form
    "matching" of the paper, by which the catalogue is ranked. The others choose from 20 candidates."""
    orders: Positive = 3
    """Orders of the candidates, drawn by a seed, over which a score is averaged: a model likes some places better."""


class MiniOneRecConfig(Settings):
    """MiniOneRec: plain GRPO behind LC-Rec on negatives; what is not here is as in `GrpoConfig`."""

    samples: Positive = 2_560
    """Training anchors, each seen once."""
    group_size: int = Field(default=16, ge=2)
    """Rollouts of a context (paper: 16)."""
    batch_size: Positive = 32
    rollouts: Literal["sample", "gumbel", "beams"] = "beams"
    """How they are found, see `GrpoConfig.rollouts` (paper: constrained beam search)."""
    learning_rate: Rate = 1e-4
    """Of a model of some million parameters (the authors' 1e-5 is for billions)."""
    kl_weight: float = Field(default=1e-3, ge=0)
    """Beta (the authors' code: 0.001)."""
    evaluations: Positive = 6
    """How often validation FHR@20 is measured, start and end included; the best state is kept."""

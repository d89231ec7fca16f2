"""What users do with what they are shown: nothing, like, dislike; with a reason or by mistake.

A reaction is the true utility plus noise: above one threshold it is positive, below another the user is annoyed, and
presses the button as readily as it is his nature. A share of the negatives says nothing about taste.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conrec.arrays import Array
from conrec.logs.simulation.world import World
from conrec.protocol import NEGATIVE, POSITIVE
from conrec.settings.simulation import SimulationConfig

__all__ = ["OFF_TOPIC", "REASONS", "Felt", "Reactions", "Thresholds", "feel", "react", "thresholds_of"]

OF_TASTE = ("don't want this item", "don't want this category", "don't want this shop", "image is unpleasant")
OFF_TOPIC = ("already bought", "clickbait price", "fake", "AI image")
"""Reasons that say nothing about taste (paper: these are dropped)."""
REASONS = OF_TASTE + OFF_TOPIC


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where feelings become reactions.

    Attributes:
        negative: below it a user is annoyed.
        positive: above it he likes what he sees.
    """

    negative: float
    positive: float


@dataclass(frozen=True, slots=True)
class Felt:
    """What exposures are like before thresholds.

    Attributes:
        value: float32 [n], utility plus noise.
        presses: bool [n], whether the user would press the button if he were annoyed.
        off_topic: bool [n], whether he presses it for something that has nothing to do with taste.
        by_mistake: bool [n], whether he presses it by mistake and takes it back.
    """

    value: Array
    presses: Array
    off_topic: Array
    by_mistake: Array


@dataclass(frozen=True, slots=True)
class Reactions:
    """What became of exposures.

    Attributes:
        feedback: int8 [n], -1, 0 or +1.
        reason: int8 [n], index into `REASONS`, -1 where none was given.
        undone: bool [n], presses that were taken back; their feedback is -1.
        off_topic: bool [n], negatives that say nothing about taste.
    """

    feedback: Array
    reason: Array
    undone: Array
    off_topic: Array


def feel(world: World, random: np.random.Generator, taste: Array, row: Array, users: Array, items: Array) -> Felt:
    """Utility and chance of each exposure; arguments as for `World.utilities`."""
    config, n = world.config, len(users)
    value = world.utilities(taste, row, users, items)
    value += np.float32(config.noise) * random.standard_normal(n, dtype=np.float32)
    presses = random.random(n, dtype=np.float32) < world.people.presses[users]
    other = random.random(n)
    off_topic = config.off_topic * config.negative_share
    mistakes = config.undone * config.negative_share
    return Felt(value, presses, other < off_topic, (other >= off_topic) & (other < off_topic + mistakes))


def react(config: SimulationConfig, random: np.random.Generator, felt: Felt, thresholds: Thresholds) -> Reactions:
    """Reactions to exposures that feel so."""
    annoyed = (felt.value < thresholds.negative) & felt.presses
    liked = felt.value > thresholds.positive
    negative = annoyed | felt.off_topic
    undone = felt.by_mistake & ~negative & ~liked
    feedback = np.zeros(len(liked), dtype=np.int8)
    feedback[liked] = POSITIVE
    feedback[negative | undone] = NEGATIVE
    reason = np.full(len(liked), -1, dtype=np.int8)
    rows = np.flatnonzero(negative)
    drawn = random.integers(0, 4, len(rows)) + np.where(felt.off_topic[rows], len(OF_TASTE), 0)
    said = random.random(len(rows)) < config.reasons
    reason[rows[said]] = drawn[said]
    return Reactions(feedback, reason, undone, felt.off_topic)


def thresholds_of(config: SimulationConfig, felt: Felt) -> Thresholds:
    """Thresholds at which these exposures have the shares of positives and negatives that the settings ask for."""
    n = len(felt.value)
    positives = round(config.positive_share * n)
    ranked = np.sort(felt.value[~felt.off_topic])
    positive = float(ranked[-min(positives + 1, len(ranked))])
    annoyed = np.sort(felt.value[felt.presses & ~felt.off_topic])
    wanted = round(config.negative_share * n) - int(felt.off_topic.sum())
    if not len(annoyed):
        return Thresholds(float(ranked[0]), positive)
    # An annoyed user does not like at the same time: the negative threshold stays below the positive one.
    return Thresholds(min(float(annoyed[min(max(wanted, 0), len(annoyed) - 1)]), positive), positive)

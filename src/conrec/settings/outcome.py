"""Settings of what comes of the models: predictions and metrics; and of the run itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conrec.settings.base import Positive, Settings
from conrec.settings.models import Context

__all__ = ["EvaluationConfig", "PredictionConfig", "RunConfig"]


class PredictionConfig(Settings):
    """Generation of the predict sets."""

    top_k: Annotated[int, Field(ge=50)] = 50
    """Ranks that are written for each anchor."""
    predict_set: Annotated[int, Field(ge=1, le=255)] = 20
    """Size of the predict set that the filter stores; at most `top_k`."""
    context: Context = "both"
    """What a prompt of a CoNRec row shows at prediction, the same for all of its stages (LC-Rec: as it was trained)."""
    batch_size: Positive = 32
    certified: bool = True
    """Whether the language model's top K is searched until it is proved exact; false: what K plain beams find. With
    trained models the proof costs little; a flat model over a large catalogue may have to read most of it."""
    node_budget: Positive = 4096
    """Once the search has read this many prefixes for one prompt it gives up the proof; how many lists that left
    unproved is printed."""
    normalise: Literal["allowed", "vocabulary"] = "allowed"
    """Over what the language model's probabilities sum to 1 at each code of a prediction: the codes that lead to an
    eligible item, or its whole vocabulary. Rollouts and their training are over allowed codes in any case."""


class EvaluationConfig(Settings):
    """Metrics and their intervals."""

    top_k: Positive = 20
    bootstraps: Positive = 2000
    """Resamples of users behind each interval."""


class RunConfig(Settings):
    """Seed and machine."""

    seed: int = 0
    conrec: bool = True
    """Whether CoNRec itself is trained; false: the rows of `baselines.rows` alone."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; None: as many as the machine has. Results repeat to the byte for the same number."""
    checkpoint_minutes: Annotated[float, Field(ge=0)] | None = 5.0
    """Minutes between two checkpoints within a training of CoNRec's stages: after a kill, the same command goes on from
    the last one, to the same weights. None: none are written, and a stage that was killed begins again."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers in which the language model multiplies; weights, losses and log-probabilities are float32 in any case.
    bfloat16 is for GPUs, where it takes less memory and time."""

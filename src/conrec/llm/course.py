"""The course of a training: its curves, the best state so far, and how it ends where a number is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from conrec.errors import ConrecError

__all__ = ["Best", "Curve", "TrainingError", "clip_gradients", "learned_state"]


class TrainingError(ConrecError):
    """A loss or a reward that is not a finite number."""


@dataclass
class Curve:
    """Learning curves by name: pairs of (step, value).

    Attributes:
        series: the curves.
        told: called with every new point (name, step, value), before it is judged.
    """

    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    told: Callable[[str, int, float], None] | None = field(default=None, repr=False, compare=False)

    def add(self, name: str, step: int, value: float) -> None:
        """Append one point; a value that is not finite ends the training.

        Raises:
            TrainingError: value is NaN or infinite.
        """
        if self.told is not None:
            self.told(name, step, value)
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} at step {step}", where="training", mend="A lower learning_rate usually helps."
            )
        self.series.setdefault(name, []).append((step, value))

    def lists(self) -> dict[str, list[list[int | float]]]:
        """The same with lists for pairs, as JSON gives it back."""
        return {name: [list(point) for point in points] for name, points in self.series.items()}


@dataclass
class Best:
    """The state of a model that had the best value so far; of equal ones the first.

    Attributes:
        value: that value.
        state: a copy of its weights that can be learned, None before the first offer.
    """

    value: float = -math.inf
    state: dict[str, Any] | None = None

    def offer(self, model: torch.nn.Module, value: float) -> None:
        """The model as it is now has this value."""
        if self.state is None or value > self.value:
            self.value = value
            self.state = {name: one.clone() for name, one in learned_state(model).items()}

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best state back; the model stays as it is where nothing was offered."""
        if self.state is not None:
            model.load_state_dict(self.state, strict=False)


def learned_state(model: torch.nn.Module) -> dict[str, Any]:
    """The state of a model without the weights that are frozen; not copied."""
    frozen = {name for name, one in model.named_parameters(remove_duplicate=False) if not one.requires_grad}
    return {name: one for name, one in model.state_dict().items() if name not in frozen}


def clip_gradients(parameters: Iterable[torch.nn.Parameter], longest: float, step: int) -> None:
    """Scale gradients down to a norm, in place.

    Args:
        parameters: whose gradients.
        longest: norm that they keep at most, over all of them together.
        step: for the message.

    Raises:
        TrainingError: the norm is not finite; the weights are still those before the step.
    """
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, longest))
    if not math.isfinite(norm):
        raise TrainingError(
            f"the norm of the gradient is {norm} at step {step}",
            where="training",
            mend="A lower learning_rate usually helps; with bfloat16, float32 may.",
        )

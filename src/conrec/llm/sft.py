"""Supervised training of the language model on stretches of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from conrec.errors import ConrecError
from conrec.llm.adapters import adapted
from conrec.llm.backbone import Backbone
from conrec.llm.prompts import Stretch
from conrec.progress import meter
from conrec.seeds import derive

__all__ = ["Best", "Curve", "TrainingError", "cosine_schedule", "train_supervised"]

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises from 0."""


class TrainingError(ConrecError):
    """A loss or a reward that is not a finite number."""


@dataclass
class Curve:
    """Learning curves by name: pairs of (step, value)."""

    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, name: str, step: int, value: float) -> None:
        """Append one point; a value that is not finite ends the training.

        Raises:
            TrainingError: value is NaN or infinite.
        """
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
            frozen = {name for name, one in model.named_parameters(remove_duplicate=False) if not one.requires_grad}
            self.value = value
            self.state = {name: one.clone() for name, one in model.state_dict().items() if name not in frozen}

    def restore(self, model: torch.nn.Module) -> None:
        """Put the best state back; the model stays as it is where nothing was offered."""
        if self.state is not None:
            model.load_state_dict(self.state, strict=False)


@runtime_checkable
class Sample(Protocol):
    """Whatever can be trained on: batches are of samples with a similar number of tokens."""

    @property
    def ids(self) -> list[int]:
        """Tokens, those of all samples of a batch being read together."""


def cosine_schedule(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over the first steps, then a cosine down to a tenth."""
    warm = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def train_supervised(
    backbone: Backbone,
    stretches: Sequence[Sample],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    description: str,
    evaluations: int = 0,
    evaluate: Callable[[], float] | None = None,
    series: str = "validation_fhr@20",
    loss_of: Callable[[Backbone, Sequence[Any]], Tensor] | None = None,
) -> Curve:
    """Minimise the cross-entropy of the target tokens, in place; of a backbone with `Backbone.lora`, by adapters.

    Args:
        backbone: the model.
        stretches: all samples; each is seen once an epoch, in batches of similar length.
        epochs, batch_size, learning_rate: AdamW, see `cosine_schedule`.
        seed: of the order.
        description: for the progress bar.
        evaluations: how often ``evaluate`` is called, evenly spaced; the state of the best value is kept.
        evaluate: a value to maximise on validation data.
        series: name of that value in the curve.
        loss_of: another loss of a batch, for samples that are no `Stretch`.

    Returns:
        The series "loss" (mean of each step) and the evaluated one.
    """
    if not stretches:
        raise ConrecError("there is nothing to train on", where=description, mend="The log is too small for this task.")
    model = backbone.model
    rng = np.random.default_rng(seed)
    plan = [batch for _ in range(epochs) for batch in _batches(stretches, batch_size, rng)]
    curve = Curve()
    best = Best()
    measured: Callable[[Backbone, Sequence[Any]], Tensor] = loss_of or _loss
    checks = {round(len(plan) * (one + 1) / evaluations) for one in range(evaluations)} if evaluate else set()
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with adapted(backbone, backbone.lora, derive(seed, "adapters")):
        optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
        schedule = cosine_schedule(optimiser, len(plan))
        with meter(description, len(plan)) as tick, torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive(seed, "dropout"))
            for step, batch in enumerate(plan, start=1):
                model.train()
                loss = measured(backbone, [stretches[row] for row in batch])
                curve.add("loss", step, loss.item())
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                if evaluate is not None and step in checks:
                    model.eval()
                    value = evaluate()
                    curve.add(series, step, value)
                    best.offer(model, value)
                tick(note=f"loss {loss.item():.3f}")
        best.restore(model)
    model.eval()
    return curve


def _batches(stretches: Sequence[Sample], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
    """One epoch: random batches of stretches of similar length, in random order."""
    order = rng.permutation(len(stretches))
    batches: list[list[int]] = []
    pool = batch_size * 32
    for begin in range(0, len(order), pool):
        near = sorted(order[begin : begin + pool].tolist(), key=lambda row: len(stretches[row].ids))
        batches += [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
    return [batches[row] for row in rng.permutation(len(batches))]


def _pad(
    stretches: Sequence[Stretch], pad: int
) -> tuple[Int64[Tensor, "B T"], Bool[Tensor, "B T"], Int64[Tensor, "B T"]]:
    """Token ids padded on the right, which are targets, and the attention mask."""
    width = max(len(one.ids) for one in stretches)
    ids = torch.full((len(stretches), width), pad, dtype=torch.long)
    target = torch.zeros(len(stretches), width, dtype=torch.bool)
    mask = torch.zeros(len(stretches), width, dtype=torch.long)
    for row, one in enumerate(stretches):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        target[row, : len(one.ids)] = torch.tensor(one.target)
        mask[row, : len(one.ids)] = 1
    return ids, target, mask


def _loss(backbone: Backbone, stretches: Sequence[Stretch]) -> Tensor:
    """Mean cross-entropy of the targets; the vocabulary is multiplied only where there is one."""
    ids, target, mask = (one.to(backbone.device) for one in _pad(stretches, backbone.pad))
    with backbone.autocast():
        hidden = backbone.model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = backbone.model.get_output_embeddings()(hidden[:, :-1][target[:, 1:]])
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][target[:, 1:]])

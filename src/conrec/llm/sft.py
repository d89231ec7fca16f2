"""Supervised training of the language model on stretches of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from conrec.errors import ConrecError
from conrec.llm.adapters import adapted
from conrec.llm.backbone import Backbone
from conrec.llm.checkpoints import Checkpoints, Running
from conrec.llm.course import Best, Curve, clip_gradients
from conrec.llm.prompts import Stretch
from conrec.progress import meter
from conrec.seeds import derive

__all__ = ["cosine_schedule", "train_supervised"]

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises from 0."""


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
    checkpoints: Checkpoints | None = None,
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
        checkpoints: what a killed training goes on from, and where the batch of a broken step is left.

    Returns:
        The series "loss" (mean of each step) and the evaluated one.

    Raises:
        TrainingError: a loss or a gradient is not finite.
    """
    if not stretches:
        raise ConrecError("there is nothing to train on", where=description, mend="The log is too small for this task.")
    model = backbone.model
    rng = np.random.default_rng(seed)
    plan = [batch for _ in range(epochs) for batch in _batches(stretches, batch_size, rng)]
    checkpoints = checkpoints or Checkpoints(None)
    curve, best = Curve(told=checkpoints.note), Best()
    measured: Callable[[Backbone, Sequence[Any]], Tensor] = loss_of or _loss
    checks = {round(len(plan) * (one + 1) / evaluations) for one in range(evaluations)} if evaluate else set()
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with adapted(backbone, backbone.lora, derive(seed, "adapters")):
        optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
        schedule = cosine_schedule(optimiser, len(plan))
        with meter(description, len(plan)) as tick, torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive(seed, "dropout"))
            running = Running(model, optimiser, schedule, curve, best, backbone.device)
            tick(done := checkpoints.resume(running))
            for step, batch in enumerate(plan[done:], start=done + 1):
                model.train()
                with checkpoints.explaining(step, partial(_as_text, stretches, batch)):
                    loss = measured(backbone, [stretches[row] for row in batch])
                    curve.add("loss", step, loss.item())
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    clip_gradients(model.parameters(), 1.0, step)
                optimiser.step()
                schedule.step()
                if evaluate is not None and step in checks:
                    model.eval()
                    value = evaluate()
                    curve.add(series, step, value)
                    best.offer(model, value)
                checkpoints.keep(running, step)
                tick(note=f"loss {loss.item():.3f}")
        best.restore(model)
    model.eval()
    return curve


def _as_text(stretches: Sequence[Sample], rows: Sequence[int]) -> list[dict[str, Any]]:
    """The samples of a batch as JSON: their places among all samples and their tokens."""
    return [{"sample": row, "ids": list(stretches[row].ids)} for row in rows]


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

"""The training loop of the rows that are trained in epochs: AdamW, early stop on validation FHR@20, best state kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.baselines.base import Curve
from conrec.llm.course import TrainingError
from conrec.logs.anchors import Anchors
from conrec.progress import meter
from conrec.recommender import Recommender
from conrec.settings.baselines.base import TrainingSettings
from conrec.workspace import Workspace

__all__ = [
    "VALIDATION_K",
    "frozen",
    "learn",
    "parameter_count",
    "seeded",
    "start_at_popularity",
    "validation_fhr",
]

VALIDATION_K = 20
MATRIX = 2
_Network = TypeVar("_Network", bound=nn.Module)
_Batch = TypeVar("_Batch")


def learn(
    network: _Network,
    batches: Callable[[int], Sequence[_Batch]],
    loss_of: Callable[[_Batch], Float[Tensor, ""]],
    positions: Callable[[_Batch], int],
    settings: TrainingSettings,
    evaluate: Callable[[_Network], float | None],
    title: str,
) -> tuple[_Network, Curve]:
    """Train until validation stops improving, and return the best state, frozen.

    Batches of long stretches hold more positions than others: each loss is a sum over a common divisor, the mean
    number of positions of the epoch's batches, so that every position of the training period weighs the same.

    Whatever is drawn at random comes from torch's global generator (inside `seeded`) and from ``batches``.

    Args:
        network: trained in place.
        batches: the batches of an epoch, counted from 1.
        loss_of: the loss of a batch, summed over its positions.
        positions: of a batch, how many its loss is summed over.
        settings: the schedule.
        evaluate: validation FHR@20 of a frozen state; None where there are no validation anchors, and then the state of
            the last epoch is kept.
        title: of the progress bar.

    Returns:
        The best state (see `frozen`) and the series "loss" (mean over positions) and "validation_fhr@20".

    Raises:
        TrainingError: the loss of an epoch is not finite.
    """
    name = f"validation_fhr@{VALIDATION_K}"
    curve: Curve = {"loss": [], name: []}
    optimizer = torch.optim.AdamW(decayed(network, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98))
    best, best_value, best_epoch = network, -math.inf, 0  # the first epoch always replaces it
    with meter(title, settings.epochs) as step:
        for epoch in range(1, settings.epochs + 1):
            network.train()
            todo = batches(epoch)
            count = sum(positions(batch) for batch in todo)
            total = 0.0
            for batch in todo:
                loss = loss_of(batch)
                optimizer.zero_grad()
                (loss * (len(todo) / count)).backward()
                optimizer.step()
                total += float(loss.detach())
            if not math.isfinite(total):
                raise TrainingError(
                    f"{title}: the loss of epoch {epoch} is {total}",
                    where="training",
                    mend="A lower learning_rate usually helps.",
                )
            curve["loss"].append([epoch, total / count])
            state = frozen(network)
            value = evaluate(state)
            if value is not None:
                curve[name].append([epoch, value])
            # Of equal ones the later state: with few validation anchors a plateau is no reason to stop.
            if value is None or value >= best_value:
                best, best_value, best_epoch = state, value or 0.0, epoch
            step(note=f"loss {total / count:.3f}" + ("" if value is None else f", validation FHR {value:.3f}"))
            if epoch - best_epoch >= settings.patience:
                break
    return best, curve


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator from a seed; what it was before comes back behind the block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def decayed(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A network's parameters for an optimiser: matrices decay, vectors (biases of items, gains of norms) do not.

    Decay pulls the items' biases towards 0, and with them all popularities towards each other.
    """
    learned = [one for one in network.parameters() if one.requires_grad]
    return [
        {"params": [one for one in learned if one.ndim >= MATRIX], "weight_decay": weight_decay},
        {"params": [one for one in learned if one.ndim < MATRIX], "weight_decay": 0.0},
    ]


def start_at_popularity(bias: nn.Parameter, counts: Array) -> None:
    """Start the items' biases at the logarithm of their popularity, so that training begins at counting, not below it.

    From 0 they would need a thousand steps at a rate of 1e-3 to get there, and training stops long before.

    Args:
        bias: [items], set in place to ``log(1 + count)`` less its mean.
        counts: int [items], dislikes in the training period.
    """
    start = np.log1p(counts)
    with torch.no_grad():
        bias.copy_(torch.from_numpy(start - start.mean()))


def frozen(network: _Network) -> _Network:
    """A copy for answering: double precision, no dropout, no gradients."""
    return copy.deepcopy(network).double().eval().requires_grad_(False)


def validation_fhr(model: Recommender, space: Workspace, anchors: Anchors | None = None) -> float | None:
    """FHR@20 on anchors of the validation period (all of them, unless some are given); None where there are none."""
    asked = space.prepared.anchors.of_split("validation") if anchors is None else anchors
    return space.fhr(model, asked, VALIDATION_K) if len(asked) else None


def parameter_count(network: nn.Module) -> int:
    """Learned numbers of a network."""
    return sum(one.numel() for one in network.parameters())

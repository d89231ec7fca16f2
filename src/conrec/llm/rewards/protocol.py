"""What a stage of GRPO asks about its rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from conrec.arrays import Array

__all__ = ["Reward"]


@runtime_checkable
class Reward(Protocol):
    """What a stage of GRPO asks about its rollouts."""

    def __call__(
        self,
        items: Int64[Tensor, "B G"],
        gts: Sequence[Array],
        fps: Sequence[Array],
        log_probability: Float[Tensor, "B G"] | None = None,
    ) -> Float[Tensor, "B G"]:
        """Reward of each rollout, finite.

        Args:
            items: rollouts; any item where nothing was drawn.
            gts: for each row, what is wanted; not empty.
            fps: for each row, what is not wanted; may be empty.
            log_probability: of each rollout when it was drawn, -inf where nothing was. None: all were drawn.
        """
        ...

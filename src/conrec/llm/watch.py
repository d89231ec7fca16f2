"""What a stage of GRPO is held to on validation data: the state that is kept, the weight of KL, an early end.

The paper tunes beta "per stage" and says neither how nor to what; a stage that raises its reward may still lose what
the model knew, or answer everybody with the same few items. Here three rules read the curves of the validation data,
and nothing else, so that a stage that goes on after a kill decides as it would have done:

* *kept*: the state whose sum of the named series is highest, that before the first step among them; or the last one.
* *held*: while a named series lies below its value at the start by more than a tolerance, beta is doubled at every
  evaluation; where it does not, beta is halved, down to what the stage began with.
* *narrowest*: where the lists of the validation data together hold less than this share of the items that they held at
  the start, the stage ends, and no state from there on is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from conrec.llm.course import Curve

__all__ = ["KL_WEIGHT", "Watch"]

KL_WEIGHT = "kl_weight"
"""Series of beta, a point at each evaluation."""
LEAST = 0.05
"""Beta is doubled from no less, or a beta of 0 would stay 0."""
MOST = 64.0
"""Beta is doubled up to this many times what the stage began with (or `LEAST`)."""


@dataclass(frozen=True)
class Watch:
    """Values of the validation data, asked a few times in a stage, and what follows from them.

    Attributes:
        measure: values by series, of the model as it is.
        kept: series whose sum decides which state is kept; none: the last state is.
        held: series that a rule for beta keeps up; none: beta is fixed.
        tolerance: by how much each of these may fall before beta grows.
        widths: series that count distinct items.
        narrowest: share of each of these at the start below which the stage ends; 0: it never does.
    """

    measure: Callable[[], Mapping[str, float]]
    kept: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    tolerance: float = 0.0
    widths: tuple[str, ...] = ()
    narrowest: float = 0.0

    def worth(self, curve: Curve) -> float | None:
        """What the state of the last evaluation is worth; None: it is not among those that may be kept."""
        if self.narrowed(curve):
            return None
        if self.kept:
            return sum(curve.series[name][-1][1] for name in self.kept)
        return float(curve.series[self.widths[0]][-1][0]) if self.narrowest and self.widths else None

    def narrowed(self, curve: Curve) -> bool:
        """Whether the lists of the last evaluation hold too few items."""
        points = [curve.series[name] for name in self.widths if curve.series.get(name)]
        return any(one[-1][1] < self.narrowest * one[0][1] for one in points)

    def kl_weight(self, curve: Curve, first: float) -> float:
        """Beta from the last evaluation on.

        Args:
            curve: with that evaluation, and with beta as it was until then.
            first: beta at the start of the stage.
        """
        before = curve.series[KL_WEIGHT][-1][1] if curve.series.get(KL_WEIGHT) else first
        if any(curve.series[name][-1][1] < curve.series[name][0][1] - self.tolerance for name in self.held):
            return min(max(2.0 * before, LEAST), MOST * max(first, LEAST))
        return max(before / 2.0, first)

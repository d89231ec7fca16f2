"""What the steps of the data stage cost: a bar while they run, seconds, rows a second and peak memory at the end."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from conrec.progress import meter

__all__ = ["Costs"]


@dataclass
class Costs:
    """Seconds of each step, and the events that all of them are about.

    Attributes:
        steps: how many steps there will be, for the bar.
        events: of the log, once it is known.
        seconds: of each step, by its name in order.
    """

    steps: int
    events: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[Costs]:
        """A bar that goes on with each step."""
        with meter("data", self.steps) as bar:
            self._bar = bar
            yield self

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens within."""
        self._bar(0, name)
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin
        self._bar(1, name)

    def lines(self) -> list[str]:
        """For people."""
        each = [
            f"  {name}: {took:.1f} s, {self.events / max(took, 1e-9):,.0f} events/s"
            for name, took in self.seconds.items()
        ]
        whole = sum(self.seconds.values())
        rate = self.events / max(whole, 1e-9)
        return [
            f"{self.events:,} events in {whole:.1f} s ({rate:,.0f} events/s), peak memory {peak_gigabytes():.1f} GB",
            *each,
        ]


def peak_gigabytes() -> float:
    """Most memory that this process ever held, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

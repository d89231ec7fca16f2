"""Claims, timings and the last line of a benchmark.

A benchmark is a script that measures ratios against something named, prints a table for people, and as its
last line one JSON object for machines. Its exit status is 0 whether or not a claim holds: a loss is a result.

What is compared is run in turns (A B A B …) after a warm-up, and a ratio is the median of the ratios of the
turns: whatever else the machine does meanwhile falls on both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = ["Arguments", "Claim", "Report", "Spread", "Turns", "arguments", "take_turns"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of some repeats."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{self.median:.4g}  ({self.low:.4g} – {self.high:.4g}, n = {self.repeats})"


@dataclass(frozen=True)
class Turns:
    """Seconds of everything that was compared, turn by turn.

    Attributes:
        seconds: for each name one list a turn, with one entry a call within that turn.
    """

    seconds: Mapping[str, Sequence[Sequence[float]]]

    def spread(self, name: str) -> Spread:
        """Of one name's calls."""
        return Spread.of([one for turn in self.seconds[name] for one in turn])

    def ratio(self, over: str | Sequence[str], under: str | Sequence[str]) -> Spread:
        """Of the turns' ratios: median call of ``over`` by median call of ``under`` in the same turn.

        Of several names the medians are added.
        """
        pairs = zip(self._of_turns(over), self._of_turns(under), strict=True)
        return Spread.of([above / below for above, below in pairs])

    def _of_turns(self, names: str | Sequence[str]) -> list[float]:
        chosen = [self.seconds[name] for name in ((names,) if isinstance(names, str) else names)]
        return [sum(statistics.median(calls) for calls in turn) for turn in zip(*chosen, strict=True)]


def take_turns(
    things: Mapping[str, Callable[[], Any]],
    turns: int,
    *,
    calls: Mapping[str, int] | None = None,
    warm: Mapping[str, bool] | None = None,
    device: torch.device | str = "cpu",
) -> Turns:
    """Time several functions in turns.

    Args:
        things: what to call, by name.
        turns: how often each gets its turn; every second turn runs in the opposite order.
        calls: how many calls make one turn, by name; 1 where it is not said. Short things get several, spread
            over the turn as evenly as the longest allows.
        warm: False for what is too long to be called once before the clock runs; True where it is not said.
        device: what to wait for before the clock is read.

    Returns:
        The seconds of every call.
    """
    calls, warm = calls or {}, warm or {}
    for name, call in things.items():
        if warm.get(name, True):
            call()
    longest = max(calls.get(name, 1) for name in things)
    seconds: dict[str, list[list[float]]] = {name: [] for name in things}
    for turn in range(turns):
        order = list(things) if turn % 2 == 0 else list(reversed(things))
        for name in order:
            seconds[name].append([])
        for lap in range(longest):
            for name in order:
                share = calls.get(name, 1)
                # Lap numbers at which this one is called: `share` of them, evenly spaced.
                if (lap + 1) * share // longest > lap * share // longest:
                    seconds[name][-1].append(_clock(things[name], device))
    return Turns(seconds)


def _clock(call: Callable[[], Any], device: torch.device | str) -> float:
    """Seconds of one call, the device's queue included."""
    _wait(device)
    begin = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True, slots=True)
class Claim:
    """A number, the bound that it is to keep, and how many turns it is the median of (0 where nothing was measured)."""

    name: str
    value: float
    runs: int
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"claim {self.name!r} needs one bound: at_least or at_most")

    @property
    def holds(self) -> bool:
        """Whether the value keeps the bound; NaN keeps none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.at_most is not None and self.value <= self.at_most

    def as_json(self) -> dict[str, Any]:
        """The claim as the last line has it."""
        bound = {"at_least": self.at_least} if self.at_least is not None else {"at_most": self.at_most}
        return {"claim": self.name, "value": _number(self.value), **bound, "holds": self.holds, "runs": self.runs}


@dataclass
class Report:
    """What one benchmark found, printed for people as it goes and for machines at the end.

    Attributes:
        benchmark: its name.
        quick: whether sizes were reduced.
        runs: turns of the main configuration.
    """

    benchmark: str
    quick: bool = False
    runs: int = 0
    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def claim(
        self, name: str, value: float, *, runs: int, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Add a claim; ``name`` alone for the configuration that is promised, ``name/variant`` for others.

        A value of NaN says that it could not be measured; it holds nothing.
        """
        if any(name == one.name for one in self.claims):
            raise ValueError(f"claim {name!r} is there already")
        self.claims.append(Claim(name, float(value), runs, at_least, at_most))
        one = self.claims[-1]
        bound = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"
        self.say(f"  {'holds' if one.holds else 'FAILS':<6} {name:<52} {value:>10.4g}   {bound}   n = {runs}")

    def figure(self, name: str, value: float | int | str | Spread) -> None:
        """Add a figure without a bound."""
        if name in self.figures:
            raise ValueError(f"figure {name!r} is there already")
        if isinstance(value, Spread):
            self.figures[name] = {
                "median": _number(value.median),
                "low": _number(value.low),
                "high": _number(value.high),
                "repeats": value.repeats,
            }
            text = str(value)
        else:
            self.figures[name] = _number(value) if isinstance(value, float) else value
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
        self.say(f"         {name:<52} {text}")

    def note(self, text: str) -> None:
        """Add a remark, for instance why something was left out."""
        self.notes.append(text)
        self.say(f"  note   {text}")

    def heading(self, text: str) -> None:
        """Begin a part of the table."""
        self.say(f"\n{text}")

    @staticmethod
    def say(text: str) -> None:
        """Print one line at once."""
        print(text, flush=True)

    def finish(self, described: Mapping[str, Any], file: Path | None = None) -> None:
        """Print the JSON object as the last line, and write it to ``file`` where one is given."""
        result = {
            "benchmark": self.benchmark,
            "claims": [one.as_json() for one in self.claims],
            "machine": dict(described),
            "runs": self.runs,
            "quick": self.quick,
            "figures": self.figures,
            "notes": self.notes,
        }
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        failed = [one.name for one in self.claims if not one.holds]
        self.say(f"\n{len(self.claims) - len(failed)} of {len(self.claims)} claims hold")
        sys.stdout.flush()
        print(json.dumps(result, ensure_ascii=False, allow_nan=False), flush=True)


def _number(value: float) -> float | None:
    """A finite number to six significant digits; JSON has no NaN and no infinity."""
    return float(f"{value:.6g}") if abs(value) < float("inf") else None


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments that every benchmark has."""

    quick: bool
    device: str
    dtype: torch.dtype
    json: Path | None
    only: tuple[str, ...]

    def wants(self, part: str) -> bool:
        """Whether this part is to be measured."""
        return not self.only or part in self.only


def arguments(doc: str | None, parts: Sequence[str], argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line.

    Args:
        doc: the script's docstring.
        parts: names that ``--only`` takes.
        argv: the command line; that of the process where it is None.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="the same claims at a smaller size, in under a minute")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the models")
    parser.add_argument("--threads", type=int, help="torch threads (default: one a core that may be used)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the last line's object to FILE")
    parser.add_argument("--only", nargs="+", choices=parts, default=(), help="measure these parts alone")
    parsed = parser.parse_args(argv)
    if parsed.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device, or this PyTorch was built without one")
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    return Arguments(parsed.quick, parsed.device, getattr(torch, parsed.dtype), parsed.json, tuple(parsed.only))

"""Checkpoints within a training: after a kill it goes on from the last one, to the same weights.

A checkpoint is one safetensors file, written under another name and renamed: the weights that are learned, the best
ones so far, the moments of AdamW, the states of the random generators; and, as JSON in its header, the step, the
learning rate's schedule and the curves. Nothing is pickled. What must be the same for it to be taken up (settings,
data, version) is the pipeline's to know: it hands out the folder, and empties it where something changed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conrec.artefacts import read_tensor_metadata, read_tensors, write_json, write_tensors
from conrec.errors import ArtefactError
from conrec.llm.course import Best, Curve, TrainingError, learned_state
from conrec.progress import console

__all__ = ["Checkpoints", "Running"]

NAME = "checkpoint.safetensors"
JOURNAL = "journal.jsonl"


@dataclass
class Running:
    """All of a training that changes from step to step.

    Attributes:
        model: what of it is frozen is not kept.
        optimiser: AdamW.
        schedule: its learning rate.
        curve, best: so far.
        device: whose random generator is kept beside the CPU's.
    """

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    curve: Curve
    best: Best
    device: torch.device


class Checkpoints:
    """Where a training keeps what it has, and what it has gone through.

    The folder holds the checkpoint, ``journal.jsonl`` (every point of every curve as it comes, a JSON object a line:
    series, step, value), ``seconds.json`` (how long it took to get to the checkpoint), and, after a step whose loss,
    reward or gradient was not finite, ``batch.json``.

    Args:
        folder: None: nothing is kept, and nothing is taken up.
        every: seconds between two checkpoints at least.
        writes: false in all processes but the first; they read what it wrote.
    """

    def __init__(self, folder: Path | None, every: float = 300.0, *, writes: bool = True) -> None:
        self.folder = folder
        self.every = every
        self.writes = writes and folder is not None
        self._begin = self._last = time.monotonic()
        if self.folder is not None and self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)

    def resume(self, running: Running) -> int:
        """Put a training where the checkpoint left it, in place; the number of steps that are done, 0 without one.

        A file that cannot be read counts as none, and is told.
        """
        if self.folder is None:
            return 0
        path = self.folder / NAME
        state: dict[str, Any] | None = None
        if path.is_file():
            try:
                tensors, state = read_tensors(path), json.loads(read_tensor_metadata(path)["state"])
            except (ArtefactError, KeyError, ValueError) as error:
                console.print(f"        {path} is not used: {error}", markup=False, highlight=False, soft_wrap=True)
        if state is None:
            if self.writes:
                (self.folder / JOURNAL).unlink(missing_ok=True)
            return 0
        _restore(running, {name: torch.from_numpy(one) for name, one in tensors.items()}, state)
        step: int = state["step"]
        self._begin -= state["seconds"]
        if self.writes:
            self._rewrite_journal(running.curve)
        console.print(f"        goes on after step {step}", markup=False, highlight=False)
        return step

    def keep(self, running: Running, step: int) -> None:
        """Write a checkpoint after a step, where the last one is old enough.

        Raises:
            OSError: the disk is full, among others.
        """
        now = time.monotonic()
        if self.folder is None or not self.writes or now - self._last < self.every:
            return
        seconds = now - self._begin
        tensors, state = _state(running)
        text = json.dumps({**state, "step": step, "seconds": seconds}, allow_nan=False)
        write_tensors(self.folder / NAME, {key: one.cpu().numpy() for key, one in tensors.items()}, {"state": text})
        write_json(self.folder / "seconds.json", seconds)
        self._last = time.monotonic()

    def note(self, name: str, step: int, value: float) -> None:
        """Append a point to the journal (a value that is not finite as a string, since JSON has none)."""
        if self.folder is not None and self.writes:
            with (self.folder / JOURNAL).open("a", encoding="utf-8") as journal:
                journal.write(_line(name, step, value))

    @contextmanager
    def explaining(self, step: int, batch: Callable[[], list[Any]]) -> Iterator[None]:
        """Where the block ends with a TrainingError, leave its batch in the folder and say so.

        Args:
            step: its number.
            batch: gives the samples as JSON.
        """
        try:
            yield
        except TrainingError as error:
            if self.folder is not None and self.writes:
                path = self.folder / "batch.json"
                write_json(path, {"step": step, "error": str(error), "samples": batch()})
                raise TrainingError(
                    f"{error.found}; the batch is in {path}", where=error.where, mend=error.mend
                ) from None
            raise

    def _rewrite_journal(self, curve: Curve) -> None:
        """The journal as it was at the checkpoint, by step."""
        assert self.folder is not None
        points = [(step, name, value) for name, series in curve.series.items() for step, value in series]
        lines = [_line(name, step, value) for step, name, value in sorted(points, key=lambda one: one[0])]
        (self.folder / JOURNAL).write_text("".join(lines), encoding="utf-8")


def _line(name: str, step: int, value: float) -> str:
    """A line of the journal."""
    finite = value - value == 0
    return json.dumps({"series": name, "step": step, "value": value if finite else str(value)}) + "\n"


def _state(running: Running) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name, and the rest as JSON."""
    tensors = {f"model/{name}": one for name, one in learned_state(running.model).items()}
    tensors |= {f"best/{name}": one for name, one in (running.best.state or {}).items()}
    for number, moments in running.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": one for name, one in moments.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if running.device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(running.device)
    schedule = {name: value for name, value in running.schedule.state_dict().items() if name != "lr_lambdas"}
    rest = {
        "schedule": schedule,
        "rates": [group["lr"] for group in running.optimiser.param_groups],
        "curve": running.curve.series,
        "best": running.best.value if running.best.state is not None else None,
    }
    return tensors, rest


def _restore(running: Running, tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> None:
    """The opposite of `_state`."""
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "best": {}, "optimiser": {}, "random": {}}
    for key, one in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = one
    running.model.load_state_dict(parts["model"], strict=False)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, one in parts["optimiser"].items():
        number, _, name = key.partition("/")
        moments.setdefault(int(number), {})[name] = one
    running.optimiser.load_state_dict({**running.optimiser.state_dict(), "state": moments})
    for group, rate in zip(running.optimiser.param_groups, rest["rates"], strict=True):
        group["lr"] = rate
    running.schedule.load_state_dict({**running.schedule.state_dict(), **rest["schedule"]})
    running.curve.series.update({name: [(step, value) for step, value in one] for name, one in rest["curve"].items()})
    if rest["best"] is not None:
        running.best.value = rest["best"]
        running.best.state = {name: one.to(running.device) for name, one in parts["best"].items()}
    torch.set_rng_state(parts["random"]["cpu"])
    if running.device.type == "cuda":
        torch.cuda.set_rng_state(parts["random"]["cuda"], running.device)

"""Several processes of one run: who they are, what they tell each other, and how their tensors are added.

``torchrun`` and ``accelerate launch`` start N equal processes and tell each its place by environment variables.
The first one decides and writes; the others wait for its word and help where the work is shared. Words go as JSON
through the launcher's key-value store, and waiting for one has no time limit, because a stage of the first process
may take hours; tensors go through gloo on CPU and NCCL on CUDA.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from conrec.arrays import Array
from conrec.errors import ConfigError, ConrecError

__all__ = ["ALONE", "PeerError", "Processes", "joined"]

PATIENCE = timedelta(days=1)
"""How long a process waits in a sum of tensors: one of them may be measuring something of its own meanwhile."""
LAST_WORDS = 5.0
"""Seconds in which a process that ended is still expected to have said why, and in which one that failed is heard."""
FAREWELL = 60.0
"""Seconds in which all are expected to leave once all are done."""
BUCKET = 1 << 25
"""Gradients are added in flat pieces of about so many numbers."""
START = "Start all of them with: torchrun --nproc-per-node N -m conrec …"
"""What to do where the environment variables do not fit together."""


class PeerError(ConrecError):
    """Another process of the run ended, and this one can only end too."""


@dataclass(eq=False)
class Processes:
    """This process among those that work on one run; by default it is alone, and everything below is trivial.

    All processes must call `decide`, `gather`, `all_reduce` and `sum_gradients` in the same order.

    Attributes:
        rank: place of this process, from 0.
        world: number of processes.
        local: number of those on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 1
    _store: Any = None
    _words: int = field(default=0, repr=False)

    @property
    def first(self) -> bool:
        """Whether this process decides, and writes files."""
        return self.rank == 0

    def share(self, rows: Array) -> Array:
        """Every ``world``-th row, from this process's own place on."""
        mine: Array = rows[self.rank :: self.world]
        return mine

    def decide(self, value: Any = None) -> Any:
        """The JSON value that the first process gave, in all processes.

        Raises:
            PeerError: another process ended before it spoke.
        """
        if self.world == 1:
            return value
        self._words += 1
        key = f"decision {self._words}"
        if self.first:
            self._store.set(key, json.dumps(value))
        return self._read(key)

    def gather(self, value: Any = None) -> list[Any]:
        """The JSON values that all processes gave, by rank, in all processes.

        Raises:
            PeerError: another process ended before it spoke.
        """
        if self.world == 1:
            return [value]
        self._words += 1
        self._store.set(f"word {self._words} of {self.rank}", json.dumps(value))
        return [self._read(f"word {self._words} of {rank}") for rank in range(self.world)]

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' tensors of one shape, in place; returned for convenience.

        Raises:
            PeerError: another process ended.
        """
        if self.world > 1:
            try:
                dist.all_reduce(tensor)
            except RuntimeError as error:
                raise self._ended(str(error).splitlines()[0], wait=True) from None
        return tensor

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], factor: float) -> None:
        """Replace each gradient by ``factor`` times its sum over all processes; a missing one counts as 0.

        The sums travel in flat pieces, so that a model of hundreds of tensors costs a few messages. Every process
        receives the same numbers to the bit, so that equal weights stay equal.
        """
        learned = [one for one in parameters if one.requires_grad]
        if self.world == 1:
            for one in learned:
                if one.grad is not None:
                    one.grad.mul_(factor)
            return
        for bucket in _buckets(learned):
            parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
            flat = self.all_reduce(torch.cat([part.flatten() for part in parts])).mul_(factor)
            for one, part in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                one.grad = part.view_as(one)

    @contextmanager
    def sharing_threads(self) -> Iterator[None]:
        """Within, this process has its share of the CPU threads that it had before, since all are at work at once."""
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, before // self.local))
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _read(self, key: str) -> Any:
        """Wait for a word; asking again and again, since the store's own waiting gives up after minutes."""
        pause = 0.001
        try:
            while not self._store.check([key]):
                if self._store.check(["failure"]):
                    raise self._ended("", wait=False)
                time.sleep(pause)
                pause = min(2 * pause, 0.2)
            return json.loads(self._store.get(key))
        except RuntimeError as error:  # torch.distributed.DistError: the store went with the process that held it
            raise self._ended(str(error).splitlines()[0], wait=False) from None

    def _leave(self, patience: float) -> None:
        """Say that this process asks nothing more; the first one goes last, since the words may lie in it.

        Where no launcher holds the store, it ends with the first process, and the others would take that for an error.
        """
        try:
            self._store.set(f"{self.rank} is gone", "")
            others = [f"{rank} is gone" for rank in range(1, self.world)]
            until = time.monotonic() + (patience if self.first else 0.0)
            while time.monotonic() < until and not self._store.check(others):
                time.sleep(0.01)
        except RuntimeError:
            return  # the store is gone, and with it all who would wait

    def _failed(self, error: BaseException) -> None:
        """Leave word of why this process ends."""
        reason = str(error) if isinstance(error, ConrecError) else f"{type(error).__name__} {error}".strip()
        try:
            if not self._store.check(["failure"]):
                self._store.set("failure", f"process {self.rank} of {self.world} ended ({reason})")
        except RuntimeError:
            return  # nobody is left to read it

    def _ended(self, symptom: str, wait: bool) -> PeerError:
        """The error to raise where another process is gone."""
        until = time.monotonic() + (LAST_WORDS if wait else 0.0)
        while True:
            try:
                if self._store.check(["failure"]):
                    return PeerError(self._store.get("failure").decode(), where="another process of this run")
            except RuntimeError:
                break
            if time.monotonic() >= until:
                break
            time.sleep(0.05)
        return PeerError(f"it cannot be reached any more ({symptom})", where="another process of this run")


ALONE = Processes()
"""The only process of a run."""


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """All processes that a launcher started, found by its environment variables; `ALONE` where there is none.

    Nobody leaves the block before all are done, and the first process leaves it last. An error or Ctrl-C in one
    process ends the others with its message.

    Args:
        device: "cpu" or "cuda"; of several GPUs, each process of a machine takes the one of its LOCAL_RANK.

    Raises:
        ConfigError: the environment variables do not fit together, or there are fewer GPUs than processes.
        PeerError: another process ended.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Processes()
        return
    local = _number("LOCAL_RANK", 0)
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own",
                where="LOCAL_RANK",
                expected=f"at most {torch.cuda.device_count()} processes a machine",
                mend='Start fewer processes, or set run.device = "cpu".',
            )
        torch.cuda.set_device(local)
    try:
        store, rank, world = next(rendezvous("env://", timeout=timedelta(minutes=10)))
        store.set_timeout(PATIENCE)
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=dist.distributed_c10d.PrefixStore("tensors", store),
            rank=rank,
            world_size=world,
            timeout=PATIENCE,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the {world} processes do not find each other ({str(error).splitlines()[0]})",
            where="RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT",
            mend=START,
        ) from None
    found = Processes(
        rank, world, _number("LOCAL_WORLD_SIZE", world), dist.distributed_c10d.PrefixStore("words", store)
    )
    try:
        yield found
        found.gather()
    except BaseException as error:
        if not isinstance(error, PeerError):
            found._failed(error)
        found._leave(LAST_WORDS)
        raise
    dist.destroy_process_group()  # by all at once: over NCCL one waits for another here
    found._leave(FAREWELL)


def _number(name: str, otherwise: int) -> int:
    """An environment variable that counts processes."""
    text = os.environ.get(name, str(otherwise))
    if not text.isdecimal():
        raise ConfigError(f"the environment variable is {text!r}", where=name, expected="a whole number", mend=START)
    return int(text)


def _buckets(parameters: list[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters in their order, in pieces of one dtype and about `BUCKET` numbers."""
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for one in parameters:
        if bucket and (size + one.numel() > BUCKET or one.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(one)
        size += one.numel()
    if bucket:
        yield bucket

"""Peak memory of one step, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

__all__ = ["Peak", "alone"]


class Peak:
    """How far memory rises above what the process holds already.

    On CUDA it is what PyTorch allocates; elsewhere what is resident (Linux).
    """

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cpu":
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the high-water mark begins anew
            self.before = _status("VmRSS")
        else:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def mebibytes(self) -> float:
        """The rise so far, MiB."""
        after = _status("VmHWM") if self.device == "cpu" else torch.cuda.max_memory_allocated()
        return (after - self.before) / 2**20


def _status(name: str) -> int:
    """Bytes of one line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


def alone(call: Callable[..., float], *arguments: Any) -> float:
    """What ``call`` returns in a fresh process; it and its arguments must be picklable.

    Raises:
        OSError: this system does not tell.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(call, torch.get_num_threads(), *arguments).result()

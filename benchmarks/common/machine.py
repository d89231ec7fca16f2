"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["machine"]

PACKAGES = ("conrec", "numpy", "torch", "transformers", "accelerate", "trl")


def machine(device: torch.device | str) -> dict[str, Any]:
    """The processor, its cores and threads, and the versions of what ran."""
    described: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "accelerator": None,
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }
    if torch.device(device).type == "cuda":
        described["accelerator"] = torch.cuda.get_device_name(torch.device(device))
    return described


def _cpu() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

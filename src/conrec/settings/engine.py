"""Settings of the engine that runs the relational steps; none of them changes a result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from conrec.settings.base import Settings

__all__ = ["EngineConfig"]


class EngineConfig(Settings):
    """Where the relational steps (cleaning, anchors, candidates, Swing) run."""

    name: Literal["duckdb", "spark"] = "duckdb"
    """`duckdb` runs within this process and spills to disk; `spark` runs on a Spark master (extra `spark`)."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of DuckDB; None: those of the run."""
    memory_gb: float | None = Field(default=None, ge=0.1)
    """Memory of DuckDB in GB (10^9 bytes) before it spills; None: half of the machine's."""
    temporary: Path | None = None
    """Folder for what does not fit in memory; None: the system's."""
    master: str | None = None
    """Spark master, such as `local[2]` or `yarn`; None: the session or the master that is in use, else `local[*]`."""

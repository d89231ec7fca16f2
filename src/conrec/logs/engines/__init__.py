"""The engines that run the relational steps: DuckDB within this process, Spark on a cluster. One SQL text for both."""

from __future__ import annotations

from conrec.logs.engines.base import Engine
from conrec.logs.engines.embedded import DuckDb
from conrec.settings.engine import EngineConfig

__all__ = ["DuckDb", "Engine", "open_engine"]


def open_engine(config: EngineConfig, threads: int = 1) -> Engine:
    """The engine that a configuration names; to be closed, or used in a ``with`` block.

    Args:
        config: which one, and its limits.
        threads: of DuckDB, where ``config`` does not say.

    Raises:
        MissingExtraError: Spark is asked for and not installed.
    """
    if config.name == "spark":
        from conrec.logs.engines.spark import Spark  # noqa: PLC0415  (an extra)

        return Spark(config.master)
    return DuckDb(config.threads or threads, config.memory_gb, config.temporary)

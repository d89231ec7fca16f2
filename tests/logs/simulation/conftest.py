"""One small platform, simulated once; treat its folder as read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from conrec.logs.simulation import Simulated, simulate
from conrec.settings.simulation import SimulationConfig

SMALL = SimulationConfig(users=250, items=2000, categories=24, events=25_000, days=30, truth_days=10, seed=5)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Simulated]:
    """The folder of `SMALL` and what was said of it."""
    folder = tmp_path_factory.mktemp("simulated")
    return folder, simulate(SMALL, folder)

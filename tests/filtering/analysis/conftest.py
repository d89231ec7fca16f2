"""A small run of sixty users, analysed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.conftest import write_run


@pytest.fixture(scope="session")
def analysed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the report's tests, with ``results/filter_analysis.json``; tests that change it work on a copy."""
    return write_run(tmp_path_factory.mktemp("analysis") / "run")

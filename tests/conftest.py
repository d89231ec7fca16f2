"""Real data for tests: MovieLens-100K, fetched once into the repository's own cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from conrec.config import Config, DataConfig
from conrec.logs.prepare import Prepared, prepare, read_prepared
from conrec.logs.sources import Loaded, load
from tests.finished_run import write_run

CACHE = Path(__file__).parents[1] / ".cache" / "conrec"


@pytest.fixture(scope="session")
def ml100k() -> Loaded:
    """MovieLens-100K as its source gives it."""
    return load(DataConfig(cache=CACHE))


@pytest.fixture(scope="session")
def prepared_folder(ml100k: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose ``data`` stage is done, with the default protocol; treat it as read-only."""
    folder = tmp_path_factory.mktemp("ml100k")
    prepare(Config(), folder, ml100k)
    return folder


@pytest.fixture(scope="session")
def prepared_ml100k(prepared_folder: Path) -> Prepared:
    """MovieLens-100K with anchors, candidates and Swing."""
    return read_prepared(prepared_folder)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run of sixty users whose models' answers are invented; tests that change it work on a copy."""
    return write_run(tmp_path_factory.mktemp("finished") / "run")

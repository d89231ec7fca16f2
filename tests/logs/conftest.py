"""A random log as a fixture."""

from __future__ import annotations

import pytest

from conrec.logs.log import Log
from tests.logs.small_logs import draw_log


@pytest.fixture
def random_log(request: pytest.FixtureRequest) -> Log:
    """A log drawn with the parameter as its seed."""
    return draw_log(int(request.param))

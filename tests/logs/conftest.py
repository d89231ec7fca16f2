"""A random log as a fixture."""

from __future__ import annotations

import pytest
from small_logs import draw_log

from conrec.logs.log import Log


@pytest.fixture
def random_log(request: pytest.FixtureRequest) -> Log:
    """A log drawn with the parameter as its seed."""
    return draw_log(int(request.param))

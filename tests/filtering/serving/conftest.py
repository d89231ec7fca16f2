"""A service in this process over the small run of circles, and its log."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from conrec.filtering.serving.app import create_app
from conrec.filtering.serving.logs import EventLog
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.service import Service
from conrec.filtering.serving.settings import TOKEN_VARIABLE, ServeSettings

THRESHOLD = 0.9
BASE = "http://127.0.0.1"
"""A service without a token answers to no other name."""


@dataclass
class Served:
    """A service, somebody who asks it, and what it wrote into its log."""

    run: Path
    service: Service
    client: TestClient
    stream: io.BytesIO

    def lines(self) -> list[dict[str, Any]]:
        """The log."""
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def filter(self, user_id: str, item_ids: list[str], **options: Any) -> dict[str, Any]:
        """The answer of /v1/filter."""
        got = self.client.post("/v1/filter", json={"user_id": user_id, "item_ids": item_ids, **options})
        assert got.status_code == 200, got.text
        answer: dict[str, Any] = got.json()
        return answer


Serve = Callable[..., Served]


@pytest.fixture
def serve(circle_run: Callable[[float | None], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a service with the given settings; ``threshold`` is that of its run."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with ExitStack() as ends:

        def start(threshold: float | None = THRESHOLD, **settings: Any) -> Served:
            run = circle_run(threshold)
            stream = io.BytesIO()
            service = Service(Source(run).live(), ServeSettings(**settings), run, EventLog(stream))
            ends.callback(service.close)
            client = ends.enter_context(TestClient(create_app(service), base_url=BASE, raise_server_exceptions=False))
            return Served(run, service, client, stream)

        yield start

"""The service over a store on a real server: gone, back, and on to another version."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

from starlette.testclient import TestClient

from conrec.filtering.serving.app import create_app
from conrec.filtering.serving.logs import EventLog
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.service import Service
from conrec.filtering.serving.settings import ServeSettings
from conrec.filtering.stores.publishing import publish
from tests.filtering.serving.conftest import BASE
from tests.filtering.serving.test_live import predict, wait_for
from tests.filtering.stores.conftest import Server, server

__all__ = ["server"]

ITEMS = ["i0", "i1", "i2", "i3", "i4"]


def test_a_server_that_goes_and_comes_back(circle_run: Callable[[float | None], Path], server: Server) -> None:
    run = circle_run(0.9)
    folder, address = run / "filter" / "conrec", server.address("served", "?timeout=0.5")
    publish(folder, address)
    log = io.BytesIO()
    service = Service(Source(run, None, address).live(), ServeSettings(), run, EventLog(log))
    assert service.live.current.remote
    with TestClient(create_app(service), base_url=BASE) as client:

        def kept() -> list[str]:
            got = client.post("/v1/filter", json={"user_id": "ann", "item_ids": ITEMS})
            assert got.status_code == 200
            found: list[str] = got.json()["kept"]
            return found

        def state() -> list[str]:
            service.live.check()
            why: list[str] = client.get("/ready").json()["why"]
            return why

        assert kept() == ["i2", "i3", "i4"]
        first = client.get("/version").json()["store"]["version"]
        predict(run, 4)
        publish(folder, address)
        wait_for(lambda: kept() == ["i0", "i1", "i2", "i3"])
        wait_for(lambda: state() == [] and client.get("/version").json()["store"]["version"] != first)

        server.kill()
        assert kept() == ITEMS
        assert state() == ["store unreachable"]
        server.start()  # empty: nobody is known there, and nobody is taken for unknown
        assert state() == ["store unreachable"]
        answer = client.post("/v1/filter", json={"user_id": "ann", "item_ids": ITEMS}).json()
        assert (answer["kept"], answer["known_user"], answer["reason"]) == (ITEMS, None, "kept: store unreachable")
        publish(folder, address)
        wait_for(lambda: state() == [])
        assert kept() == ["i0", "i1", "i2", "i3"]
    said = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert [event for event in said if event.startswith("store ")] == ["store unreachable", "store reachable"]
    service.close()

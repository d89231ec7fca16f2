"""A small run with a log and titles, hostile ones among them, and the service over it on a port of its own."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import uvicorn

from conrec.artefacts import write_parquet
from conrec.filtering.calibrating.threshold import TradeOff, read_threshold, write_threshold
from conrec.filtering.serving.app import create_app
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.service import Service
from conrec.filtering.serving.settings import ServeSettings
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS

HOSTILE = """<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>"""
"""Title of i1, and ID of a user of the log who is not in the store."""
TITLES = {
    "i0": "The Alpha (1990)",
    "i1": HOSTILE,
    "i2": "Beta of night",
    "i3": "Night and Gamma",
    "i4": "",
    "7": "Delta",
}
CURVE = ((-1.0, 1.0, 1.0), (0.0, 0.8, 0.9), (0.5, 0.4, 0.6), (0.9, 0.1, 0.3), (1.0, 0.0, 0.0))
DAY = 86_400
NOW = 900 * DAY
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cfc0f01f000501"
    "01ff7e3b1a6d0000000049454e44ae426082"
)


def add_calibration(run: Path, keep_all: bool = False) -> None:
    """Give the model's threshold a curve, and rates of its own."""
    threshold = read_threshold(run, "conrec")
    curve = tuple(TradeOff(at, rate, caught, rate / 2) for at, rate, caught in CURVE)
    write_threshold(run, replace(threshold, curve=curve, user_rate=0.0 if keep_all else 0.05, statement="A promise."))


def add_data(run: Path) -> None:
    """Log, titles, pictures and one test anchor of ann."""
    pictures = run / "pictures"
    pictures.mkdir()
    (pictures / "alpha.png").write_bytes(PNG)
    (pictures / "beta.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    image = {
        "i0": str(pictures / "alpha.png"),
        "i1": "http://pictures.invalid/x.png",
        "i2": str(pictures / "beta.svg"),
        "i3": str(pictures / "gone.png"),
    }
    rows = [
        {"item_id": one, "title": title, "text": title, "category": ["Drama", HOSTILE], "image": image.get(one)}
        for one, title in TITLES.items()
    ]
    write_parquet(run / "data" / "items.parquet", pa.Table.from_pylist(rows, ITEMS))
    events = [
        ("ann", "i1", NOW - 50 * DAY, -1),
        ("ann", "i2", NOW - 40 * DAY, -1),
        ("bob", "i4", NOW - 9 * DAY, -1),
        (HOSTILE, "i0", NOW - 8 * DAY, 1),
        ("Annika", "i3", NOW - 7 * DAY, 0),
        ("Annika", "i3", NOW - 6 * DAY, 1),
        ("ann", "i3", NOW - 5 * DAY, 1),
        ("bob", "7", NOW - 2 * DAY, 1),
        ("bob", "i3", NOW, 1),
    ]
    columns = zip(*events, strict=True)
    write_parquet(
        run / "data" / "events.parquet", pa.table([pa.array(one) for one in columns], EVENTS.names).cast(EVENTS)
    )
    anchor = {
        "anchor_id": 0, "user_id": "ann", "timestamp": NOW - 4 * DAY, "split": "test", "next_item": "i0",
        "future_negatives": ["i0"], "future_positives": ["7"], "candidates": list(TITLES), "candidate_answer": "i0",
        "long_tail_user": True, "negative_history": 2,
    }  # fmt: skip
    write_parquet(run / "data" / "anchors.parquet", pa.Table.from_pylist([anchor], ANCHORS))


class Site:
    """A service that runs; ``address`` of its page without a slash at the end."""

    def __init__(self, address: str, service: Service) -> None:
        self.address, self.service = address, service

    def ask(self, path: str, body: Any = None, **query: Any) -> Any:
        """JSON of an answer."""
        return json.loads(self.raw(path, body, **query)[2])

    def raw(self, path: str, body: Any = None, **query: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.address}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=10
            ) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def dropped(self, user: str, items: list[str], threshold: float | None = None) -> set[str]:
        """What the filter drops of some items."""
        answer = self.ask("/v1/filter", {"user_id": user, "item_ids": items, "threshold": threshold})
        return {one["item_id"] for one in answer["dropped"]}


@contextmanager
def serving(run: Path, port: int = 0, settings: ServeSettings | None = None) -> Iterator[Site]:
    """The service of a run in a thread."""
    bound = socket.create_server(("127.0.0.1", port))
    settings = settings or ServeSettings(access_log=False, drain_seconds=0)
    service = Service(Source(run).live(), settings, run)
    config = uvicorn.Config(create_app(service), ws="none", lifespan="on", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < until, "the service does not start"
        time.sleep(0.01)
    try:
        yield Site(f"http://127.0.0.1:{bound.getsockname()[1]}", service)
    finally:
        server.should_exit = True
        thread.join(10)
        service.close()
        bound.close()

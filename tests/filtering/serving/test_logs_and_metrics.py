"""What is written about requests: enough to run the service, nothing of what is in them."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from conrec.filtering.serving.logs import EventLog, take_over_logging
from tests.filtering.serving.conftest import Serve

SECRET = "sEcReT"
"""In every ID, header and path below; in no line of the log."""
secrets = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(lambda text: f"{SECRET}{text}")


def test_no_line_holds_an_id(serve: Serve) -> None:
    served = serve()

    @given(secrets, st.lists(secrets, max_size=4), st.sampled_from(["/v1/filter", "/v1/explain", "/v1/page/items"]))
    @settings(max_examples=40, deadline=None)
    def asks(user: str, items: list[str], path: str) -> None:
        served.client.post(path, json={"user_id": user, "item_ids": items})
        served.client.post(path, json={"user_id": [user], "item_ids": items, user: 1})
        served.client.post(path, content=user.encode(), headers={"content-type": "application/json"})
        served.client.get("/v1/predict-set", params={"user_id": user, SECRET: user})
        served.client.get("/v1/page/history", params={"user_id": user})
        served.client.request(SECRET.upper(), f"/{SECRET}", headers={"x": SECRET, "authorization": SECRET})

    asks()
    log = served.stream.getvalue()
    assert len(log.splitlines()) > 100
    assert SECRET.lower().encode() not in log.lower()
    assert SECRET not in served.client.get("/metrics").text
    assert {line["route"] for line in served.lines()} <= {
        "/v1/filter",
        "/v1/explain",
        "/v1/predict-set",
        "/v1/page/items",
        "/v1/page/history",
        "/metrics",
        "other",
    }


def test_a_request_is_one_line(serve: Serve) -> None:
    served = serve()
    got = served.client.post("/v1/filter", json={"user_id": "ann", "item_ids": ["i0", "i3"]})
    (line,) = served.lines()
    assert line.pop("seconds") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "request",
        "number": got.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/filter",
        "status": 200,
        "candidates": 2,
        "dropped": 1,
    }
    quiet = serve(access_log=False)
    quiet.filter("ann", ["i0"])
    assert quiet.lines() == []


class Full(io.BytesIO):
    """A disk without space."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    log = EventLog(Full())
    log.write("one")
    log.write("two")
    assert log.lost == 2
    EventLog(None).write("nowhere")


@pytest.fixture
def _loggers_as_they_were() -> object:
    names = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", "asyncio", "fastapi")
    before = {name: logging.getLogger(name) for name in names}
    state = {name: (one.handlers[:], one.propagate, one.level) for name, one in before.items()}
    yield
    for name, (handlers, propagate, level) in state.items():
        one = before[name]
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.mark.usefixtures("_loggers_as_they_were")
def test_what_libraries_log_loses_its_values() -> None:
    stream = io.BytesIO()
    take_over_logging(EventLog(stream))
    logging.getLogger("uvicorn.error").warning("met %s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("asyncio").exception("an error")
    logging.getLogger("uvicorn.access").error(SECRET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["met %s", "an error"]
    assert lines[1]["error"] == "ValueError"
    assert SECRET.encode() not in stream.getvalue()


def test_metrics_parse_and_count(serve: Serve) -> None:
    served = serve()
    served.filter("ann", ["i0", "i1", "i3", "?"])
    served.filter("nobody", ["i0"])
    served.client.post("/v1/filter", content=b"{")
    served.client.get("/nothing")
    got = served.client.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(got.text)
        for sample in family.samples
    }
    assert samples["conrec_requests_total", "/v1/filter", "200"] == 2
    assert samples["conrec_requests_total", "/v1/filter", "400"] == 1
    assert samples["conrec_requests_total", "404", "other"] == 1
    assert samples["conrec_request_seconds_count", "/v1/filter"] == 3
    assert samples["conrec_candidates_total",] == 5
    assert samples["conrec_dropped_total",] == 2
    assert samples["conrec_kept_total", "not above the threshold"] == 1
    assert samples["conrec_kept_total", "unknown item"] == 1
    assert samples["conrec_kept_total", "unknown user"] == 1
    assert samples["conrec_unknown_users_total",] == 1
    assert samples["conrec_store_users",] == 5
    assert samples["conrec_store_written_timestamp_seconds",] == 1
    assert samples["conrec_threshold",] == 0.9
    assert samples["conrec_predictions_age_seconds",] > 1e9
    assert samples["conrec_degraded", "reload failed"] == 0
    assert samples["conrec_requests_in_flight",] == 1
    assert ("conrec_threshold",) not in {
        (line.split("{")[0].split()[0],)
        for line in serve(None).client.get("/metrics").text.splitlines()
        if line[0] != "#"
    }

"""Every endpoint: its answers against the filter itself, whatever the IDs are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conrec.filtering.decisions import REASONS
from conrec.filtering.policy import Policy
from conrec.filtering.stores.base import StoreUnavailableError
from tests.filtering.conftest import ITEMS, USERS
from tests.filtering.serving.conftest import Serve, Served

KEPT, DROPPED = REASONS[:2]
ODD = (
    "",
    "/",
    "a/b",
    "..",
    '"',
    "'",
    "a\nb",
    "a\x00b",
    "a%2Fb",
    "?x=1&y",
    "<b>",
    "😀",
    "é",
    "é",
    " ann",
    "ann ",
    "ANN",
)
ids = st.one_of(st.sampled_from([*ITEMS, *USERS, *ODD]), st.text(st.characters(exclude_categories=["Cs"]), max_size=30))


def check(served: Served, user_id: str, item_ids: list[str], **options: object) -> None:
    """An answer says of every candidate what the filter says."""
    answer = served.filter(user_id, item_ids, **options)
    arguments = {name: value for name, value in options.items() if value is not None}
    decisions = served.service.live.current.filter.judge(user_id, item_ids, **arguments)  # type: ignore[arg-type]
    reasons = [REASONS[code] for code in decisions.reason.tolist()]
    assert answer["user_id"] == user_id
    assert answer["kept"] == [one for one, reason in zip(item_ids, reasons, strict=True) if reason != DROPPED]
    named = [
        {"item_id": one, "similarity": None if np.isnan(value) else value, "reason": reason}
        for one, value, reason in zip(item_ids, decisions.similarity.tolist(), reasons, strict=True)
    ]
    assert answer["dropped"] == [one for one in named if one["reason"] == DROPPED]
    assert answer["known_user"] is (user_id in USERS)
    if answer["reason"] is None:
        assert answer["spared"] == [one for one in named if one["reason"] not in (KEPT, DROPPED)]
    else:
        assert answer["spared"] == []
        assert all(one["reason"] in (answer["reason"], "unknown item") for one in named)


def test_filter_says_what_the_filter_says_whatever_the_ids_are(serve: Serve) -> None:
    served = serve()
    flag = st.sampled_from([None, True, False])
    threshold = st.one_of(st.none(), st.floats(-1, 1, width=32))

    @given(ids, st.lists(ids, max_size=12), threshold, st.one_of(st.none(), st.lists(ids, max_size=4)), flag)
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def agrees(
        user: str, items: list[str], threshold: float | None, allow: list[str] | None, dry_run: bool | None
    ) -> None:
        check(served, user, items, threshold=threshold, allow=allow, dry_run=dry_run)
        check(served, user, items)  # the fast path

    agrees()


def test_filter_follows_the_policy(serve: Serve) -> None:
    served = serve()
    for policy in (
        Policy(keep_at_least=3),
        Policy(allow=frozenset({"i0"})),
        Policy(dry_run=True),
        Policy(half_life_days=1.0),
    ):
        served.service.live.current.filter.policy = policy
        for user in USERS:
            check(served, user, [*ITEMS, "?", "i0", "i0"])


def test_filter_keeps_everything_without_a_threshold(serve: Serve) -> None:
    answer = serve(None).filter("ann", list(ITEMS))
    assert answer["kept"] == list(ITEMS)
    assert answer["store"]["threshold"] is None


def test_zero_and_a_hundred_thousand_candidates(serve: Serve) -> None:
    served = serve()
    answer = served.filter("ann", [])
    assert (answer["kept"], answer["dropped"], answer["spared"], answer["reason"]) == ([], [], [], None)
    assert served.filter("nobody", [])["known_user"] is False
    assert served.filter("empty", [])["reason"] == "empty predict set"
    many = ["i0", "i3", "?", "i1"] * 25_000
    answer = served.filter("ann", many)
    assert answer["kept"] == ["i3", "?"] * 25_000
    assert [one["item_id"] for one in answer["dropped"]] == ["i0", "i1"] * 25_000
    assert len(answer["spared"]) == 25_000


class Gone:
    """A store whose server went away."""

    def __init__(self, store: object) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        if name in ("get", "get_many", "changed"):

            def away(*_: object) -> None:
                raise StoreUnavailableError("no answer", where="valkey://nowhere")

            return away
        return getattr(self._store, name)


@pytest.mark.parametrize("remote", [False, True])
def test_a_store_that_is_away_keeps_everything_and_says_so(serve: Serve, remote: bool) -> None:
    served = serve()
    live = served.service.live
    store = live.current.filter.store
    live.current.filter.store = Gone(store)  # type: ignore[assignment]
    object.__setattr__(live.current, "remote", remote)
    for items in ([*ITEMS, "?"], []):
        answer = served.filter("ann", items)
        assert (answer["kept"], answer["dropped"], answer["known_user"]) == (items, [], None)
        assert answer["reason"] == "kept: store unreachable"
    ready = served.client.get("/ready")
    assert ready.status_code == 200
    assert (ready.json()["degraded"], ready.json()["why"]) == (True, ["store unreachable"])
    explained = served.client.post("/v1/explain", json={"user_id": "ann", "item_ids": ["i0"]}).json()
    assert explained["known_user"] is None
    assert [one["reason"] for one in explained["candidates"]] == ["kept: store unreachable"]
    gone = served.client.get("/v1/predict-set", params={"user_id": "ann"})
    assert gone.status_code == 503
    assert gone.json()["error"]["found"] == "the store cannot be reached now"
    assert 'conrec_degraded{why="store unreachable"} 1.0' in served.client.get("/metrics").text
    live.check()  # still away
    assert not live.reachable
    live.current.filter.store = store
    live.check()  # and back
    assert served.client.get("/ready").json()["degraded"] is False
    assert served.filter("ann", ["i0"])["kept"] == []


def test_explain_names_prediction_and_titles(serve: Serve) -> None:
    served = serve()
    got = served.client.post("/v1/explain", json={"user_id": "ann", "item_ids": ["i1", "?", "i4"]}).json()
    first, unknown, far = got["candidates"]
    assert (first["dropped"], first["reason"]) == (True, DROPPED)
    assert first["similarity"] == pytest.approx(np.cos(np.deg2rad(10)), abs=1e-4)
    assert first["predicted"] == {"sid": "a_0 b_0 c_0", "item_id": "i0", "title": "i0"}
    assert (unknown["title"], unknown["predicted"], unknown["reason"]) == (None, None, "unknown item")
    assert (far["dropped"], far["reason"]) == (False, KEPT)
    nobody = served.client.post("/v1/explain", json={"user_id": "nobody", "item_ids": ["i1"]}).json()
    assert (nobody["known_user"], nobody["candidates"][0]["reason"]) == (False, "unknown user")


def test_predict_set_of_any_id(serve: Serve) -> None:
    served = serve()

    @given(ids)
    @settings(max_examples=30, deadline=None)
    def answers(user: str) -> None:
        answer = served.client.get("/v1/predict-set", params={"user_id": user}).json()
        found = served.service.live.current.filter.predict_set(user)
        assert answer["user_id"] == user
        assert answer["known_user"] is (found is not None)
        assert [one["sid"] for one in answer["predictions"]] == ([] if found is None else found.texts())

    answers()


def test_predict_set_names_items(serve: Serve) -> None:
    answer = serve().client.get("/v1/predict-set", params={"user_id": "bob"}).json()
    assert [(one["item_id"], one["score"]) for one in answer["predictions"]] == [("i4", 1.0), ("7", 1.0)]
    assert answer["predicted_at"] == 0


def test_predict_set_refuses(serve: Serve) -> None:
    served = serve()
    for query, status, found in (
        ("", 422, "nothing"),
        ("user=ann", 422, "nothing"),
        ("user_id=a&user_id=b", 400, "2 values"),
        ("user_id=%ff", 400, "bytes that are not percent-encoded UTF-8"),
        ("user_id=%ed%a0%80", 400, "bytes that are not percent-encoded UTF-8"),
        ("user_id=" + "x" * 1025, 422, "1,025 characters"),
    ):
        got = served.client.get(f"/v1/predict-set?{query}")
        assert (got.status_code, got.json()["error"]["found"]) == (status, found)


def test_health_readiness_version(serve: Serve) -> None:
    served = serve()
    assert served.client.get("/health").json() == {"status": "alive"}
    version = served.client.get("/version").json()
    assert (version["users"], version["slots"], version["items"]) == (len(USERS), 2, len(ITEMS))
    assert version["store"]["model"] == "conrec"
    assert served.client.get("/ready").json()["ready"] is True
    served.service.stopping = True
    stopping = served.client.get("/ready")
    assert (stopping.status_code, stopping.json()["ready"], stopping.headers["connection"]) == (503, False, "close")
    assert served.client.get("/health").status_code == 200


def test_the_page_of_the_description_needs_no_network(serve: Serve) -> None:
    served = serve()
    page = served.client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    paths = served.client.get("/openapi.json").json()["paths"]
    assert {"/v1/filter", "/v1/explain", "/v1/predict-set", "/health", "/ready", "/version", "/metrics"} <= set(paths)


def test_there_is_one_shape_of_refusals(serve: Serve) -> None:
    served = serve()
    for method, path, status in (("GET", "/nothing", 404), ("GET", "/v1/filter", 405), ("PUT", "/health", 405)):
        got = served.client.request(method, path)
        assert (got.status_code, got.headers["content-type"]) == (status, "application/problem+json")
        assert set(got.json()["error"]) == {"found", "where", "expected", "mend"}


def test_what_nobody_foresaw_is_a_500_that_says_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()

    def broken(*_: object, **__: object) -> None:
        raise KeyError("ann and her secrets")

    monkeypatch.setattr(served.service.live.current.filter, "mask", broken)
    got = served.client.post("/v1/filter", json={"user_id": "ann", "item_ids": ["i0"]})
    assert got.status_code == 500
    assert "secrets" not in got.text
    assert b"secrets" not in served.stream.getvalue()
    number = got.headers["x-request-id"]
    assert number in got.json()["error"]["mend"]
    errors = [line for line in served.lines() if line["event"] == "error"]
    assert [(one["number"], one["error"]) for one in errors] == [(number, "KeyError")]
    assert any("broken" in frame for frame in errors[0]["frames"])
    assert json.loads(served.client.get("/ready").text)["ready"] is True

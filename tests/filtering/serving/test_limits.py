"""What is refused: malformed, too large, too many, too slow, without a token. Always 4xx or 503, always one shape."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.errors import ConfigError
from conrec.filtering.serving import answers
from conrec.filtering.serving.app import create_app
from conrec.filtering.serving.gate import GONE
from conrec.filtering.serving.guard import Guard, read_token
from conrec.filtering.serving.problems import LONGEST, RequestError, problem_body
from conrec.filtering.serving.questions import Questions
from conrec.filtering.serving.settings import ServeSettings
from tests.filtering.serving.conftest import Serve, Served

TOKEN = "0123456789abcdef"
GOOD = b'{"user_id":"ann","item_ids":["i0"]}'


def post(served: Served, body: bytes, path: str = "/v1/filter", **headers: str) -> tuple[int, dict[str, str]]:
    """Status and error of an answer."""
    got = served.client.post(path, content=body, headers={"content-type": "application/json"} | headers)
    error = got.json().get("error", {})
    if got.status_code >= 400:
        assert got.headers["content-type"] == "application/problem+json"
        assert set(error) == {"found", "where", "expected", "mend"}
    return got.status_code, error


REFUSED: tuple[tuple[bytes, int, str], ...] = (
    (b"", 400, "body"),
    (b"{", 400, "body"),
    (b"null", 422, "body"),
    (b"[" * 100_000, 422, "body"),
    (b"[]", 422, "body"),
    (GOOD + b" x", 400, "body"),
    (b"\xef\xbb\xbf" + GOOD, 400, "body"),
    (GOOD.decode().encode("utf-16"), 400, "body"),
    (b'{"user_id":"\xff","item_ids":[]}', 400, "body, near byte 0"),
    (b'{"user_id":"\\ud800","item_ids":[]}', 400, "body"),
    (b'{"user_id":"ann"}', 422, "body"),
    (b'{"user_id":"ann","item_ids":null}', 422, "body, $.item_ids"),
    (b'{"user_id":7,"item_ids":[]}', 422, "body, $.user_id"),
    (b'{"user_id":"ann","item_ids":["i0",7]}', 422, "body, $.item_ids[1]"),
    (b'{"user_id":"ann","item_ids":[["i0"]]}', 422, "body, $.item_ids[0]"),
    (b'{"user_id":"ann","item_ids":[],"more":1}', 422, "body"),
    (b'{"user_id":"ann","item_ids":[],"threshold":NaN}', 400, "body"),
    (b'{"user_id":"ann","item_ids":[],"threshold":Infinity}', 400, "body"),
    (b'{"user_id":"ann","item_ids":[],"threshold":1e999}', 422, "body, $.threshold"),
    (b'{"user_id":"ann","item_ids":[],"threshold":1.01}', 422, "body, $.threshold"),
    (b'{"user_id":"ann","item_ids":[],"threshold":"0.5"}', 422, "body, $.threshold"),
    (b'{"user_id":"ann","item_ids":[],"threshold":true}', 422, "body, $.threshold"),
    (b'{"user_id":"ann","item_ids":[],"allow":"i0"}', 422, "body, $.allow"),
    (b'{"user_id":"ann","item_ids":[],"dry_run":1}', 422, "body, $.dry_run"),
    (b'{"user_id":"%s","item_ids":[]}' % (b"u" * 1025), 422, "body, $.user_id"),
    (b'{"user_id":"ann","item_ids":["%s"]}' % (b"i" * 1_000_000), 422, "body, $.item_ids[0]"),
)


def test_bodies_that_are_refused(serve: Serve) -> None:
    served = serve()
    for body, status, where in REFUSED:
        found, error = post(served, body)
        assert (found, error["where"]) == (status, where), body[:60]
        assert error["found"]


QUESTIONS = Questions(ServeSettings())


@given(
    st.binary(max_size=60) | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda v: repr(v).encode())
)
@settings(max_examples=150, deadline=None)
def test_no_body_is_anything_but_a_question_or_refused(body: bytes) -> None:
    for read in (QUESTIONS.filter, QUESTIONS.explain):
        try:
            assert isinstance(read(body).user_id, str)
        except RequestError as error:
            refused = error
        else:
            continue
        assert refused.status in (400, 422)
        assert json.loads(problem_body(refused))["error"]["found"]


def test_a_long_key_is_not_sent_back_whole() -> None:
    with pytest.raises(RequestError) as caught:
        QUESTIONS.filter(b'{"user_id":"a","item_ids":[],"%s":1}' % (b"k" * 1_000_000))
    assert len(problem_body(caught.value)) < 2 * LONGEST


def test_headers_that_are_refused(serve: Serve) -> None:
    served = serve()
    assert post(served, GOOD, **{"content-type": "text/plain"})[0] == 415
    assert post(served, GOOD, **{"content-type": "application/json; charset=utf-8"})[0] == 200
    assert post(served, GOOD, **{"content-encoding": "gzip"})[0] == 415
    assert served.client.post("/v1/filter", content=GOOD).status_code == 200  # none says nothing


def test_numbers_of_candidates(serve: Serve) -> None:
    served = serve(max_candidates=3, max_explained=2, max_id_length=4)
    body = {"user_id": "ann", "item_ids": ["i0"] * 3}
    assert post(served, json.dumps(body).encode())[0] == 200
    status, error = post(served, json.dumps(body | {"item_ids": ["i0"] * 4}).encode())
    assert (status, error["where"], error["expected"]) == (422, "body, $.item_ids", "`array` of length <= 3")
    assert post(served, json.dumps(body | {"allow": ["i0"] * 4}).encode())[0] == 422
    assert post(served, json.dumps(body).encode(), "/v1/explain")[0] == 422
    assert post(served, json.dumps(body | {"item_ids": ["i0"] * 2}).encode(), "/v1/explain")[0] == 200
    assert post(served, json.dumps(body | {"user_id": "12345"}).encode())[0] == 422
    schema = served.client.get("/openapi.json").json()["components"]["schemas"]["FilterQuestion"]["properties"]
    assert (schema["item_ids"]["maxItems"], schema["user_id"]["maxLength"]) == (3, 4)


@pytest.mark.parametrize("path", ["/v1/filter", "/v1/explain", "/v1/page/items", "/health"])
def test_bodies_that_are_too_long(serve: Serve, path: str) -> None:
    served = serve(max_body_bytes=100)
    long = b'{"user_id":"ann","item_ids":[' + b'"i0",' * 100 + b'"i0"]}'
    status, error = post(served, long, path)
    assert (status if path != "/health" else 413) == 413
    if path != "/health":
        assert error["found"] == "a longer body"

    def in_parts() -> Iterator[bytes]:  # says no length beforehand
        for begin in range(0, len(long), 50):
            yield long[begin : begin + 50]

    got = served.client.post(path, content=in_parts(), headers={"content-type": "application/json"})
    assert got.status_code == (405 if path == "/health" else 413)


def test_all_bodies_together(serve: Serve) -> None:
    """So many large ones at once that they would not fit: the last are told to come again, the first are answered."""
    served = serve(max_body_bytes=1_000, max_bytes_in_hand=1_500)
    app = create_app(served.service)
    assert post(served, GOOD + b" " * 900)[0] == 200

    async def crowd() -> list[tuple[int, bytes]]:
        gate = asyncio.Event()

        async def late() -> dict[str, Any]:
            await gate.wait()
            return {"type": "http.request", "body": GOOD, "more_body": False}

        begin = {"type": "http.request", "body": b" " * 800, "more_body": True}
        first = asyncio.create_task(ask(app, [begin, late()]))
        await asyncio.sleep(0.01)
        refused = [await ask(app, [begin], path) for path in ("/v1/filter", "/v1/explain", "/v1/page/items")]
        gate.set()
        return [await first, *refused]

    first, *refused = asyncio.run(crowd())
    assert first[0] == 200
    for status, body in refused:
        assert (status, json.loads(body)["error"]["found"]) == (503, "too many bytes in hand")
    assert served.service.bytes_in_hand == 0


def test_names_that_a_service_without_a_token_answers_to(serve: Serve) -> None:
    def asked(served: Served, host: str, path: str = "/version") -> int:
        return served.client.get(path, headers={"host": host}).status_code

    served = serve()
    for name in (
        "localhost",
        "LOCALHOST:8080",
        "localhost.:8080",
        "a.localhost",
        "127.0.0.1:80",
        "127.1.2.3",
        "[::1]:80",
    ):
        assert asked(served, name) == 200, name
    for name in (
        "",
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "192.168.0.1",
        "[::2]:80",
        "0.0.0.0",
    ):
        assert asked(served, name) == 421, name
        assert asked(served, name, "/") == 421
        assert asked(served, name, "/health") == 200
    served = serve(allow_hosts=("Filter.example",))
    assert [asked(served, name) for name in ("filter.example:80", "localhost", "evil.example")] == [200, 200, 421]
    assert asked(serve(host="0.0.0.0"), "filter.example") == 200
    assert asked(serve(host="0.0.0.0", allow_hosts=("filter.example",)), "evil.example") == 421


def test_a_token_is_enough_whatever_the_name(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN, encoding="utf-8")
    served = serve(token_file=tmp_path / "token")
    right = {"authorization": f"Bearer {TOKEN}", "host": "filter.example"}
    assert served.client.get("/version", headers=right).status_code == 200


def test_half_a_character_is_the_fault_of_who_asks(serve: Serve) -> None:
    served = serve()
    for body in (b'{"item_ids": ["\\ud800"]}', b'{"item_ids": ["i0"], "user_id": "\\udc00"}'):
        status, error = post(served, body, "/v1/page/items")
        assert (status, error["found"]) == (422, "a lone surrogate")


@pytest.mark.parametrize(("candidates", "in_loop"), [(2_000, True), (2_001, False)])
def test_many_candidates_do_not_keep_the_loop(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, candidates: int, in_loop: bool
) -> None:
    served = serve()
    names: list[str] = []

    def answer(*given: Any) -> Any:
        names.append(threading.current_thread().name)
        return answers.answer_filter(*given)

    monkeypatch.setattr("conrec.filtering.serving.endpoints.answer_filter", answer)
    assert len(served.filter("ann", ["i0"] * candidates)["dropped"]) == candidates
    assert names[0].startswith("conrec-serve") is not in_loop


def test_explanations_wait_for_each_other_and_nobody_for_them(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve()
    app, let_go = create_app(served.service), threading.Event()
    monkeypatch.setattr(
        "conrec.filtering.serving.endpoints.answer_explain", lambda *_: b"{}" if let_go.wait(20) else b""
    )
    whole = {"type": "http.request", "body": GOOD, "more_body": False}
    many = json.dumps({"user_id": "ann", "item_ids": ["i0"] * 3_000}).encode()  # in a thread, too

    async def crowd() -> list[int]:
        waiting = [asyncio.create_task(ask(app, [whole], "/v1/explain")) for _ in range(8)]
        await asyncio.sleep(0.01)
        status, _ = await ask(app, [{"type": "http.request", "body": many, "more_body": False}])
        assert not any(one.done() for one in waiting)
        let_go.set()
        return [status, *(one[0] for one in await asyncio.gather(*waiting))]

    assert asyncio.run(crowd()) == [200] * 9


def test_token(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n", encoding="utf-8")
    served = serve(token_file=file)
    right = {"authorization": f"Bearer {TOKEN}"}
    closed = ("/v1/predict-set?user_id=ann", "/version", "/metrics", "/v1/page/users", "/nothing")
    for path in ("/health", "/ready", "/docs", "/openapi.json", "/"):
        assert served.client.get(path).status_code == 200, path
    for path in closed:
        for wrong in (None, "", "Bearer", "Bearer ", "Bearer 0123456789abcdeF", f"Basic {TOKEN}", TOKEN, "Bearer ✓"):
            headers = {} if wrong is None else {"authorization": wrong.encode()}
            got = served.client.get(path, headers=headers)
            assert (got.status_code, got.headers["www-authenticate"]) == (401, "Bearer"), (path, wrong)
        assert served.client.get(path, headers=right).status_code == (404 if path == "/nothing" else 200)
    assert post(served, GOOD)[0] == 401
    assert post(served, GOOD, **right)[0] == 200
    assert served.client.post("/admin/reload").status_code == 401
    assert served.client.post("/admin/reload", headers=right).json()["result"] == "switched"
    described = served.client.get("/openapi.json").json()
    assert described["paths"]["/v1/filter"]["post"]["security"] == [{"bearer": []}]
    assert "security" not in described["paths"]["/ready"]["get"]
    assert TOKEN.encode() not in served.stream.getvalue()


def test_a_new_token_counts_after_a_reload_and_a_bad_one_never(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    served = serve(token_file=file)
    file.write_text("short", encoding="utf-8")
    served.service.reload()
    assert post(served, GOOD, authorization=f"Bearer {TOKEN}")[0] == 200
    assert any(line["event"] == "token kept" for line in served.lines())
    file.write_text(TOKEN[::-1], encoding="utf-8")
    served.service.reload()
    assert post(served, GOOD, authorization=f"Bearer {TOKEN}")[0] == 401
    assert post(served, GOOD, authorization=f"Bearer {TOKEN[::-1]}")[0] == 200


def test_open_metrics(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    assert serve(token_file=file, open_metrics=True).client.get("/metrics").status_code == 200


def test_reload_needs_a_token(serve: Serve) -> None:
    status, error = post(serve(), b"", "/admin/reload")
    assert status == 403
    assert "SIGHUP" in error["mend"]


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    assert read_token(None, {}) is None
    assert read_token(None, {"CONREC_TOKEN": f" {TOKEN}\n"}) == TOKEN
    file = tmp_path / "token"
    file.write_text(TOKEN[::-1], encoding="utf-8")
    assert read_token(file, {"CONREC_TOKEN": TOKEN}) == TOKEN[::-1]
    for bad in ("", "short", "with a space in it", "ümläute-ümläute-ü", "control-\x01-characters"):
        with pytest.raises(ConfigError):
            read_token(None, {"CONREC_TOKEN": bad})
    file.write_bytes(b"\xff" * 20)
    for path in (file, tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError):
            read_token(path, {})


@given(st.binary(max_size=80))
def test_no_header_but_the_right_one_passes(header: bytes) -> None:
    guard = Guard(TOKEN)
    scheme, _, given_token = header.partition(b" ")
    if scheme.lower() == b"bearer" and given_token.strip() == TOKEN.encode():
        guard.check(header)
        return
    with pytest.raises(RequestError) as caught:
        guard.check(header)
    assert caught.value.status == 401


async def ask(app: Any, messages: list[Any], path: str = "/v1/filter", method: str = "POST") -> tuple[int, bytes]:
    """Send messages to an application by hand; an awaitable among them is waited for."""
    sent: list[dict[str, Any]] = []
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        message = next(left)
        return await message if asyncio.iscoroutine(message) else message

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": [], "root_path": "", "http_version": "1.1", "scheme": "http", "app": app}  # fmt: skip
    await app(scope, receive, send)
    status = sent[0]["status"] if sent else 0
    return status, b"".join(one.get("body", b"") for one in sent[1:])


def test_a_body_that_does_not_come_to_an_end_is_refused_in_time(serve: Serve) -> None:
    app = create_app(serve(seconds=0.05).service)
    part = {"type": "http.request", "body": b'{"user_id":', "more_body": True}
    status, body = asyncio.run(ask(app, [part, asyncio.sleep(60)]))
    assert status == 503
    assert json.loads(body)["error"]["found"] == "not answered in time"


def test_an_answer_that_takes_too_long_is_refused_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve(seconds=0.05)
    let_go = threading.Event()

    def late(*_: object) -> bytes:
        let_go.wait(10)
        return b"{}"

    monkeypatch.setattr("conrec.filtering.serving.endpoints.answer_explain", late)
    assert post(served, GOOD, "/v1/explain")[0] == 503
    let_go.set()
    assert answers.answer_filter(served.service.live.current, served.service.questions.filter(GOOD))[1].candidates == 1


def test_a_client_that_went_away_is_no_error(serve: Serve) -> None:
    served = serve()
    part = {"type": "http.request", "body": b'{"user_id":', "more_body": True}
    assert asyncio.run(ask(create_app(served.service), [part, {"type": "http.disconnect"}])) == (0, b"")
    assert [line["status"] for line in served.lines()] == [GONE]


def test_too_many_requests_in_hand(serve: Serve) -> None:
    served = serve(max_concurrent=2)
    app = create_app(served.service)

    async def crowd() -> list[tuple[int, bytes]]:
        gate = asyncio.Event()

        async def late() -> dict[str, Any]:
            await gate.wait()
            return {"type": "http.request", "body": GOOD, "more_body": False}

        waiting = [asyncio.create_task(ask(app, [late()])) for _ in range(2)]
        await asyncio.sleep(0.01)
        refused = await ask(app, [{"type": "http.request", "body": GOOD, "more_body": False}])
        alive = await ask(app, [], "/ready", "GET")
        gate.set()
        return [*await asyncio.gather(*waiting), refused, alive]

    first, second, refused, alive = asyncio.run(crowd())
    assert (first[0], second[0], refused[0], alive[0]) == (200, 200, 503, 200)
    assert json.loads(refused[1])["error"]["expected"] == "at most 2"
    assert served.service.in_flight == 0

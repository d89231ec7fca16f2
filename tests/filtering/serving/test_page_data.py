"""What the page is answered: searches and histories against plain Python, pictures that are none, limits and faults."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.artefacts import write_parquet
from conrec.errors import ArtefactError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.serving import pictures
from conrec.filtering.serving.item_cards import ItemCards
from conrec.filtering.serving.lookups import Lookups, LookupTimeoutError
from conrec.filtering.serving.pages import PAGE_FILES
from conrec.filtering.serving.pictures import is_there, kind_of, read_picture
from conrec.filtering.serving.run_log import Event, LoggedUser, RunLog
from conrec.logs.schema import EVENTS, ITEMS
from tests.filtering.serving.conftest import Serve, Served
from tests.filtering.serving.page_world import CURVE, DAY, HOSTILE, NOW, PNG, TITLES, add_calibration, add_data

Ask = Callable[..., Any]


@pytest.fixture
def served(serve: Serve) -> Served:
    """A service over a run with a log and titles."""
    started = serve()
    add_data(started.run)
    add_calibration(started.run)
    started.service.live.reload()
    return started


@pytest.fixture
def ask(served: Served) -> Ask:
    """JSON of a page's endpoint."""

    def asking(name: str, body: Any = None, status: int = 200, **query: Any) -> Any:
        path = f"/v1/page/{name}"
        got = served.client.post(path, json=body) if body is not None else served.client.get(path, params=query)
        assert got.status_code == status, got.text
        return got.json()

    return asking


def test_users_by_a_part_of_the_id(ask: Ask) -> None:
    def found(query: str, limit: int = 20) -> list[str]:
        return [one["user_id"] for one in ask("users", query=query, limit=limit)["users"]]

    assert found("AN") == ["ann", "Annika"]
    assert found("Annika") == ["Annika"]
    assert found("b") == ["bob", HOSTILE]  # "broken"
    assert found("b", 1) == ["bob"]
    assert found("") == ["ann"]  # of test anchors
    assert found("%") == found("_") == found("' OR 1=1 --") == found("\0") == []
    assert ask("users", query="bob")["users"] == [{"user_id": "bob", "disliked": 1, "liked": 2}]
    assert ask("random-user")["users"][0]["user_id"] in ("ann", "bob", "Annika", HOSTILE)


def test_history_newest_first(ask: Ask) -> None:
    history = ask("history", user_id="ann", limit=1)
    assert history["known"] is True
    assert (history["disliked_count"], history["liked_count"]) == (2, 1)
    assert [(one["item_id"], one["title"], one["timestamp"]) for one in history["disliked"]] == [
        ("i2", TITLES["i2"], NOW - 40 * DAY)
    ]
    assert history["liked"][0]["categories"] == ["Drama", HOSTILE]
    assert ask("history", user_id="nobody") == {
        "known": False, "liked": [], "disliked": [], "liked_count": 0, "disliked_count": 0,
    }  # fmt: skip


def test_candidates_of_the_anchor_else_popular_items(ask: Ask) -> None:
    anchor = ask("candidates", user_id="ann")
    assert (anchor["source"], anchor["timestamp"]) == ("anchor", NOW - 4 * DAY)
    assert {one["item_id"]: one["later"] for one in anchor["items"]} == {
        **dict.fromkeys(TITLES), "i0": "disliked", "7": "liked",
    }  # fmt: skip
    popular = ask("candidates", user_id="ann", source="popular")
    assert (popular["source"], popular["timestamp"]) == ("popular", None)
    # Of the last 30 days: i3 four times, the others once each; ann rated i3 herself.
    assert [one["item_id"] for one in popular["items"]] == ["7", "i0", "i4"]
    assert [one["item_id"] for one in ask("candidates", user_id="nobody", limit=2)["items"]] == ["i3", "7"]
    ask("candidates", user_id="ann", source="other", status=422)


def test_cards_say_what_the_user_said(ask: Ask) -> None:
    cards = ask("items", {"item_ids": ["i1", "nowhere", "i4", "i1"], "user_id": "ann"})["items"]
    assert [one["item_id"] for one in cards] == ["i1", "i4"]
    assert cards[0]["title"] == HOSTILE
    assert cards[0]["past"] == {"feedback": -1, "timestamp": NOW - 50 * DAY}
    assert (cards[1]["title"], cards[1]["past"]) == (None, None)
    assert [one["picture"] for one in ask("items", {"item_ids": list(TITLES)})["items"]] == [True] + [False] * 5


def test_titles_with_all_words(ask: Ask) -> None:
    def found(query: str) -> list[str]:
        return [one["item_id"] for one in ask("titles", query=query)["items"]]

    assert found("NIGHT") == ["i2", "i3"]
    assert found("night gamma") == ["i3"]
    assert found("7") == ["7"]
    assert found("onerror") == ["i1"]
    assert found("%") == found("   ") == []


def test_the_summary_is_the_calibration(ask: Ask, served: Served) -> None:
    summary = ask("summary")
    assert (summary["model"], summary["users"], summary["items"]) == ("conrec", 5, len(TITLES))
    assert summary["threshold"] == pytest.approx(0.9)
    assert summary["has"] == {"log": True, "anchors": True, "items": True}
    # The bounded rate is that of users, half as high here.
    assert [(one["threshold"], one["false_filter_rate"], one["caught"]) for one in summary["curve"]] == [
        (at, rate / 2, caught) for at, rate, caught in CURVE
    ]
    assert summary["calibrated"] == {"threshold": summary["threshold"], "false_filter_rate": 0.05, "caught": 0.5}
    assert summary["note"] == ""


def test_without_a_log_there_is_what_there_is(serve: Serve) -> None:
    client = serve(threshold=None).client
    users = [one["user_id"] for one in client.get("/v1/page/users").json()["users"]]
    assert sorted(users) == sorted(["ann", "bob", "42", "x" * 600, "empty"])
    assert client.get("/v1/page/users?query=NN").json()["users"] == [
        {"user_id": "ann", "disliked": None, "liked": None}
    ]
    assert client.get("/v1/page/random-user").json()["users"][0]["user_id"] in users
    candidates = client.get("/v1/page/candidates?user_id=ann&limit=3").json()
    assert candidates["source"] == "catalogue"
    assert [one["item_id"] for one in candidates["items"]] == ["i0", "i2", "7"]
    assert client.get("/v1/page/titles?query=a").json() == {"items": []}
    summary = client.get("/v1/page/summary").json()
    assert summary["keeps_everything"] is True
    assert "nothing is dropped" in summary["note"]
    assert summary["has"] == {"log": False, "anchors": False, "items": False}


def test_limits(ask: Ask) -> None:
    ask("users", query="x" * 1025, status=422)
    ask("users", limit=0, status=422)
    ask("history", status=422)
    ask("history", user_id="x" * 1025, status=422)
    ask("items", {"item_ids": ["i0"] * 1001}, status=422)
    ask("items", {"item_ids": ["x" * 1025]}, status=422)
    ask("items", {"item_ids": [1]}, status=422)
    ask("items", {"item_ids": [], "other": 1}, status=422)


def test_a_damaged_log_is_no_crash(ask: Ask, served: Served) -> None:
    path = served.run / "data" / "events.parquet"
    path.write_bytes(path.read_bytes()[:100])
    for name in ("users?query=a", "history?user_id=ann", "candidates?user_id=ann&source=popular", "random-user"):
        got = served.client.get(f"/v1/page/{name}")
        assert got.status_code == 503, name
        assert str(served.run) not in got.text
    assert ask("summary")["has"]["log"] is True


def test_what_takes_too_long_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, pa.table({"n": range(1000)}))
    lookups = Lookups(seconds=0.2)
    slow = "SELECT count(*) FROM " + ", ".join(f"read_parquet($file) {one}" for one in "abcd")
    with pytest.raises(LookupTimeoutError, match=r"not read through in 0\.2 seconds"):
        lookups.rows(path, slow)
    assert lookups.rows(path, "SELECT max(n) FROM read_parquet($file)") == [(999,)]  # the next is answered
    with pytest.raises(ArtefactError, match="missing"):
        lookups.rows(tmp_path / "none.parquet", slow)
    lookups.close()


def test_a_scan_stops_when_enough_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, pa.table({"n": range(50_000)}))
    lookups, seen = Lookups(), 0
    with lookups.stream(path, "SELECT n FROM read_parquet($file) WHERE n >= $least", least=10) as batches:
        for batch in batches:
            seen += len(batch)
            if seen >= 100:
                break
    assert 100 <= seen < 5_000
    lookups.close()


LOGS = st.lists(
    st.tuples(
        st.sampled_from(["a", "A", "ab", "ß", "x%"]),
        st.sampled_from("ijk"),
        st.integers(0, 9),
        st.sampled_from([-1, 0, 1]),
    ),
    min_size=1,
    max_size=25,
).map(lambda rows: sorted(rows, key=lambda row: row[2]))


@given(LOGS, st.sampled_from(["a", "A", "B", "%", "q"]), st.integers(1, 4))
@settings(deadline=None, max_examples=12)
def test_the_log_is_read_as_plain_python_reads_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, int]], query: str, limit: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    columns = [pa.array(one) for one in zip(*rows, strict=True)]
    write_parquet(folder / "events.parquet", pa.table(columns, EVENTS.names).cast(EVENTS))
    lookups = Lookups()
    log = RunLog(folder, lookups)
    users = {user for user, *_ in rows}
    counts = {
        user: LoggedUser(user, *(sum(row[0] == user and row[3] == sign for row in rows) for sign in (-1, 1)))
        for user in users
    }
    found = log.users(query, limit)
    matching = {user for user in users if query.lower() in user.lower()}
    assert len(found) == min(limit, len(matching))
    assert all(one == counts[one.user_id] and one.user_id in matching for one in found)
    assert not found or query not in users or found[0].user_id == query
    for user in users:
        history = log.history(user, limit)
        for sign, side, count in (
            (1, history.liked, history.liked_count),
            (-1, history.disliked, history.disliked_count),
        ):
            events = [Event(row[1], row[2]) for row in reversed(rows) if row[0] == user and row[3] == sign]
            assert (list(side), count) == (events[:limit], len(events))
        last = {row[1]: (row[3], row[2]) for row in rows if row[0] == user and row[3]}
        rated = log.rated(user, ["i", "j"])
        assert {one: (said.feedback, said.timestamp) for one, said in rated.items()} == {
            one: last[one] for one in ("i", "j") if one in last
        }
    number = sum(map(ord, query)) / 1000
    drawn = log.random_user(number)
    assert drawn is not None
    assert drawn.user_id == rows[int(number * len(rows))][0]
    lookups.close()


def test_a_picture_is_served_as_it_is(served: Served) -> None:
    got = served.client.get("/v1/page/picture", params={"item_id": "i0"})
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, PNG, "image/png")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in got.headers["content-security-policy"]
    for item in ("i1", "i2", "i3", "i4", "nowhere", "../../../etc/passwd"):
        assert served.client.get("/v1/page/picture", params={"item_id": item}).status_code == 404, item


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG, "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif"), (b"GIF87a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), (b"\0\0\0\x20ftypavif", "image/avif"), (b"", None), (b"<svg", None),
        (b"<!doctype html>", None), (b"%PDF-1.7", None), (b"BM", None), (b"RIFF\0\0\0\0WAVE", None),
    ],
)  # fmt: skip
def test_kinds_by_their_first_bytes(head: bytes, kind: str | None) -> None:
    assert kind_of(head) == kind


def test_what_is_no_picture_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any, **__: Any) -> bytes:
        raise AssertionError("an address was fetched")

    monkeypatch.setattr("conrec.items.encoders.images.fetch_bytes", fetched)
    monkeypatch.setattr(pictures, "MAX_BYTES", 1_000)
    (tmp_path / "right.png").write_bytes(PNG)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "large.png").write_bytes(PNG + bytes(1_000))
    (tmp_path / "empty.png").touch()
    (tmp_path / "secret.png").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.png")
    inline = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    right = read_picture("right.png", tmp_path)
    assert right is not None
    assert right.data == PNG
    assert is_there("right.png", tmp_path)
    assert read_picture(inline, None) == right
    assert is_there(inline, None)
    for name in (
        None, "", " ", "text.png", "large.png", "empty.png", "secret.png", "pipe.png", "missing.png", ".", "a\0b",
        "x" * 5000, "http://127.0.0.1/x.png", "https://pictures.invalid/x.png", "file:///etc/passwd", "ftp://x/y",
        "/etc/passwd",
        "data:image/svg+xml,<svg onload='alert(1)'/>", "data:image/png;base64,???", "data:",
    ):  # fmt: skip
        assert read_picture(name, tmp_path) is None, name
        if name is None or not name.startswith(("data:", "large")):
            assert not is_there(name, tmp_path), name


def test_relative_pictures_lie_where_the_run_looked_for_them(
    circle_run: Callable[[float | None], Path], tmp_path: Path
) -> None:
    run = circle_run(0.9)
    add_data(run)
    rows = [{"item_id": one, "title": one, "text": "", "category": [], "image": "alpha.png"} for one in TITLES]
    write_parquet(run / "data" / "items.parquet", pa.Table.from_pylist(rows, ITEMS))
    catalogue, lookups = FilterCatalogue.load(run), Lookups()
    assert ItemCards(run, lookups).picture(catalogue, "i0") is None
    (run / "config.toml").write_text(f"[encoder.image]\nfolder = {json.dumps(str(run / 'pictures'))}\n")
    found = ItemCards(run, lookups).picture(catalogue, "i0")
    assert found is not None
    assert found.data == PNG
    (run / "config.toml").write_text("[encoder.image\n")  # no settings that can be read: as without
    assert ItemCards(run, lookups).picture(catalogue, "i0") is None
    lookups.close()


def test_the_page_is_open_and_its_data_is_not(serve: Serve, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-for-this-test")
    client = serve(token_file=token).client
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    assert {name.rpartition(".")[2] for name in names} == {"svg", "css", "js"}
    for name in names:
        got = client.get(f"/{name}")
        assert (got.status_code, got.headers["x-content-type-options"]) == (200, "nosniff"), name
    asked = ("summary", "users", "random-user", "history?user_id=a", "candidates?user_id=a", "titles?query=a")
    for name in (*asked, "picture?item_id=a"):
        assert client.get(f"/v1/page/{name}").status_code == 401, name
    assert client.post("/v1/page/items", json={"item_ids": []}).status_code == 401
    right = {"Authorization": "Bearer a-token-for-this-test"}
    assert client.get("/v1/page/summary", headers=right).status_code == 200


def test_the_files_of_the_page_ask_nobody_else() -> None:
    folder = files("conrec.filtering.serving").joinpath(PAGE_FILES.strip("/"))
    content = {one.name: one.read_text(encoding="utf-8") for one in folder.iterdir()}
    assert {"index.html", "page.js", "page.css", "icon.svg"} <= set(content)
    for name, text in content.items():
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"@import|url\(|innerHTML|insertAdjacentHTML|document\.write|eval\(|\son\w+=\"", text), (
            name
        )


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_all_text_can_be_read() -> None:
    style = files("conrec.filtering.serving").joinpath("page", "page.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{([^}]*)\}", style)
    ]
    assert len(schemes) == 2
    on = {
        "paper": ("ink", "quiet", "accent", "bad", "good"), "ground": ("ink", "quiet", "accent"), "stripe": ("quiet",),
        "accent": ("on-accent",), "bad": ("paper",), "bad-ground": ("ink", "bad"), "good-ground": ("ink", "good"),
        **{f"tone{one}": ("quiet",) for one in range(6)},
    }  # fmt: skip
    pairs = [(front, back) for back, fronts in on.items() for front in fronts]
    for scheme in schemes:
        for front, back in pairs:
            high, low = sorted((luminance(scheme[front]), luminance(scheme[back])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back, scheme[front], scheme[back])  # WCAG 2.2, AA

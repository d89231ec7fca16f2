"""The filter that answers, and how another one takes its place, or does not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conrec.artefacts import read_tensors, write_tensors
from conrec.errors import ArtefactError
from conrec.filtering.calibrating.threshold import write_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.predict_sets import write_predict_sets
from conrec.filtering.serving.live import Live
from conrec.filtering.serving.opening import Source
from conrec.filtering.stores.files import HEADER
from conrec.recommender import Ranking
from tests.filtering.conftest import threshold_of
from tests.filtering.serving.conftest import Serve, Served

Build = Callable[[float | None], Path]


def predict(run: Path, item: int, users: tuple[str, ...] = ("ann",)) -> None:
    """Write another store: these users will dislike one item."""
    items = np.full((len(users), 1), item, dtype=np.int32)
    ranking = Ranking(items, np.zeros((len(users), 1), dtype=np.float32))
    write_predict_sets(run, "conrec", users, ranking, FilterCatalogue.load(run), written_at=2)


def damage(run: Path) -> bytes:
    """Bring a store whose file is cut in half, as an interrupted copy would; `HEADER` as it was before.

    It is never whole at its place: a watcher that had mapped it by then would be ended by the kernel.
    """
    other = run.parent / "another machine"
    shutil.copytree(run, other)
    predict(other, 3)
    folder, copied = run / "filter" / "conrec", other / "filter" / "conrec"
    header = (folder / HEADER).read_bytes()
    file = next(copied.glob("data-*.mdb"))
    os.truncate(file, file.stat().st_size // 2)
    for one in (file, copied / HEADER):
        one.replace(folder / one.name)
    shutil.rmtree(other)
    return header


def dropped(live: Live) -> list[str]:
    return [one.item_id for one in live.current.filter.filter("ann", ["i0", "i1", "i2", "i3", "i4"]).dropped]


def test_a_new_store_is_found_by_itself(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    assert dropped(live) == ["i0", "i1"]
    assert live.check() is None
    before = live.current
    predict(run, 4)
    done = live.check()
    assert done is not None
    assert (done.result, done.error) == ("switched", None)
    assert dropped(live) == ["i4"]
    assert live.current.version != before.version
    assert live.check() is None
    # Requests that still hold the old one read it to their end, whose file is gone by now.
    assert before.filter.judge("ann", ["i0"]).dropped.tolist() == [True]


def test_a_new_threshold_is_found_by_itself(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    write_threshold(run, threshold_of("conrec", 0.99, live.current.filter.catalogue.sid_hash))
    done = live.check()
    assert done is not None
    assert done.result == "switched"
    assert dropped(live) == ["i0"]


def test_settings_that_changed_are_found_by_themselves(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    (run / "config.toml").write_text("[filter]\ndry_run = true\n", encoding="utf-8")
    done = live.check()
    assert done is not None
    assert done.result == "switched"
    assert dropped(live) == []
    (run / "config.toml").write_text("[filter]\ndry_rum = true\n", encoding="utf-8")
    live.check()
    assert live.state()["why"] == ["reload failed"]
    (run / "config.toml").write_text('[filter]\nallow = ["i1"]\n', encoding="utf-8")
    live.check()
    assert (live.state()["why"], dropped(live)) == ([], ["i0"])


def test_items_are_read_again_where_they_changed_and_only_there(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    before = live.current.filter.catalogue
    predict(run, 4)
    live.check()
    assert live.current.filter.catalogue is before
    path = run / "items" / "rebuilt.safetensors"
    write_tensors(path, read_tensors(path))  # another file, be it of the same numbers
    done = live.check()
    assert done is not None
    assert (done.result, done.error) == ("switched", None)
    assert live.current.filter.catalogue is not before
    assert live.check() is None


def test_a_broken_store_leaves_the_old_one_and_is_said(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    damage(run)
    done = live.check()
    assert done is not None
    assert done.result == "failed"
    assert isinstance(done.error, ArtefactError)
    assert live.state() == {"degraded": True, "why": ["reload failed"]}
    assert dropped(live) == ["i0", "i1"]
    assert live.check() is None  # not again at once
    live._not_before = 0.0
    assert live.check() is not None  # but later
    predict(run, 4)
    live._not_before = 0.0
    done = live.check()
    assert done is not None
    assert done.result == "switched"
    assert live.state() == {"degraded": False, "why": []}


def test_a_reload_that_failed_is_said_until_one_works(circle_run: Build) -> None:
    """Also where the files that are watched are those that are served, and what is broken lies beside them."""
    run = circle_run(0.9)
    live = Source(run).live()
    file = next((run / "filter" / "conrec").glob("data-*.mdb"))
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert live.reload().result == "failed"
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        assert live.check() is None
        assert live.state()["why"] == ["reload failed"]
        assert live._pause == pause
        live._not_before = 0.0
        done = live.check()
        assert done is not None
        assert done.result == "failed"
    file.write_bytes(good)
    live._not_before = 0.0
    done = live.check()
    assert done is not None
    assert (done.result, live.state()["why"]) == ("switched", [])


def test_files_that_are_again_those_that_are_served_need_no_reload(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    path = run / "filter" / "conrec.json"
    path.rename(run / "aside")
    live.check()
    assert live.state()["why"] == ["reload failed"]
    (run / "aside").rename(path)
    assert live.check() is None
    assert live.state()["why"] == []


def test_what_cannot_be_opened_may_be_answered_for_until_it_can(circle_run: Build) -> None:
    run = circle_run(0.9)
    damage(run)
    source = Source(run, "conrec")
    live = source.live(whatever_comes=True)
    assert live.state() == {"degraded": True, "why": ["reload failed", "store unreachable"]}
    judged = live.current.filter.filter("ann", ["i0", "i1"])
    assert [one.reason for one in judged.kept] == ["kept: store unreachable"] * 2
    assert live.check() is None
    live._not_before = 0.0
    assert live.check() is not None
    predict(run, 4)
    done = live.check()
    assert done is not None
    assert (done.result, dropped(live), live.state()["why"]) == ("switched", ["i4"], [])


def test_a_broken_threshold_leaves_the_old_one_until_it_is_as_it_was(circle_run: Build) -> None:
    run = circle_run(0.9)
    live = Source(run).live()
    path = run / "filter" / "conrec.json"
    good = path.read_bytes()
    path.write_text("{", encoding="utf-8")
    done = live.check()
    assert done is not None
    assert done.result == "failed"
    path.unlink()
    done = live.check()  # another state: tried at once
    assert done is not None
    assert done.result == "failed"
    path.write_bytes(good)
    done = live.check()
    assert done is not None
    assert done.result == "switched"


def test_a_store_that_follows_by_itself_is_described_anew(circle_run: Build) -> None:
    run = circle_run(0.9)
    told: list[str] = []
    live = Source(run).live()
    live.on_reload = lambda done: told.append(done.result)
    store = live.current.filter.store
    predict(run, 4)
    newer = Source(run).load().store
    live.current.filter.store = newer  # as a store on a server does within itself
    done = live.check()
    assert done is not None
    assert (done.result, told) == ("switched", ["switched"])
    assert live.current.version == newer.version[:16] != store.version[:16]
    assert newer.version[:16] in bytes(live.current.described).decode()
    assert live.check() is None


def test_whatever_goes_wrong_while_opening_leaves_the_old_one(circle_run: Build) -> None:
    run = circle_run(0.9)
    source = Source(run)

    def load(before: NegativeFilter | None) -> NegativeFilter:
        if before is None:
            return source.load()
        raise MemoryError("with ann's data in it")

    live = Live(load)
    done = live.reload()
    assert done.error is not None
    assert "MemoryError" in str(done.error)
    assert "ann" not in str(done.error)
    assert dropped(live) == ["i0", "i1"]


def test_the_first_filter_must_open(circle_run: Build) -> None:
    run = circle_run(0.9)
    damage(run)
    with pytest.raises(ArtefactError):
        Source(run).live()


def test_watching_in_a_thread(serve: Serve) -> None:
    served = serve()
    served.service.live.watch(0.01)
    predict(served.run, 4)
    wait_for(lambda: served.filter("ann", ["i0", "i4"])["kept"] == ["i0"])
    damage(served.run)
    wait_for(lambda: served.client.get("/ready").json()["why"] == ["reload failed"])
    assert served.filter("ann", ["i0", "i4"])["kept"] == ["i0"]
    reloads = [line for line in served.lines() if line["event"] == "reload"]
    assert [one["result"] for one in reloads][:2] == ["switched", "failed"]
    assert 'conrec_reloads_total{result="switched"} 1.0' in served.client.get("/metrics").text


def test_admin_reload_says_why_it_failed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONREC_TOKEN", "0123456789abcdef")
    served = with_token(serve, monkeypatch)
    headers = {"authorization": "Bearer 0123456789abcdef"}
    assert served.client.post("/admin/reload", headers=headers).status_code == 200
    damage(served.run)
    got = served.client.post("/admin/reload", headers=headers)
    assert got.status_code == 409
    assert "from before goes on" in got.json()["error"]["mend"]


def with_token(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("CONREC_TOKEN", "0123456789abcdef")
    return serve()


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)

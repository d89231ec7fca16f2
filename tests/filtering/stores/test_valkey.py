"""Predict sets on a real server: the same answers as from the folder, and clear ones where it fails."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from conrec.cli import app
from conrec.errors import ArtefactError, ConfigError, MissingExtraError, RunLockedError
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.stores import address as address_module
from conrec.filtering.stores import publishing
from conrec.filtering.stores.address import Address, is_address
from conrec.filtering.stores.base import PredictSetReader, StoreMeta, StoreUnavailableError
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.opening import open_store
from conrec.filtering.stores.publishing import publish
from conrec.filtering.stores.valkey import ValkeyStore
from conrec.filtering.stores.valkey_keys import Names, sealed
from tests.filtering.conftest import ITEMS
from tests.filtering.conftest import USERS as USERS_OF_THE_CIRCLE
from tests.filtering.stores.conftest import ORIGIN, Server, fill

USERS = ["ann", "bob", "é" * 400, *(f"user {number}" for number in range(300))]


def keys_of(server: Server, name: str) -> set[bytes]:
    with Address.parse(server.address(name)).connect() as client:
        return set(client.keys(f"conrec:{name}:*"))


def contents(server: Server, name: str) -> dict[bytes, object]:
    """Every key of a store with its value."""
    with Address.parse(server.address(name)).connect() as client:
        versions = Names(name).versions.encode()
        return {
            key: client.hgetall(key) if key == versions else client.get(key) for key in sorted(keys_of(server, name))
        }


def test_the_answers_are_those_of_the_folder(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, USERS)
    done = publish(tmp_path, server.address("same"))
    assert (done.meta.count, done.replaced) == (303, False)
    folder = PredictSetStore.open(tmp_path)
    assert done.lines() == [
        f"published: valkey://127.0.0.1:{server.port}/same, 303 users, version {folder.version[:16]}"
    ]
    with open_store(server.address("same"), "h", codebook_hash="c") as store:
        assert isinstance(store, ValkeyStore)
        assert isinstance(store, PredictSetReader)
        assert (store.meta, store.version, len(store)) == (folder.meta, folder.version, 303)
        asked = [*USERS, "nobody", "", "\ud800", "x" * 1_000_000]
        one, other = folder.get_many(asked), store.get_many(asked)
        for name in ("found", "codes", "scores", "predicted_at"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        for user in asked[:5] + asked[-4:]:
            expected, found = folder.get(user), store.get(user)
            assert (expected is None) == (found is None)
            if expected is not None and found is not None:
                np.testing.assert_array_equal(found.codes, expected.codes)
                np.testing.assert_array_equal(found.scores, expected.scores)
                assert (found.user_id, found.predicted_at) == (user, expected.predicted_at)
        assert sorted(store.user_ids()) == sorted(USERS)
        assert len(store.get_many([])) == 0
        assert not store.changed()


def test_other_tables_are_refused(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, USERS)
    place = server.address("tables")
    with pytest.raises(ArtefactError, match=r"no predict-set store. Publish the store again"):
        open_store(place)
    publish(tmp_path, place)
    with pytest.raises(ArtefactError, match="SID table h…; expected the SID table of this run, g…"):
        open_store(place, "g")
    with pytest.raises(ArtefactError, match="codebooks"):
        open_store(place, "h", codebook_hash="d")
    assert open_store(place, "g", ["h"]).get("ann") is not None


def test_a_switch_under_readers(server: Server, tmp_path: Path) -> None:
    """Every answer is of one version, old or new, never a mixture and never none."""
    first, second, place = tmp_path / "1", tmp_path / "2", server.address("switch")
    fill(first, USERS, seed=1)
    fill(second, USERS, seed=2, at=72_000)
    expected = {}
    for folder in (first, second):
        with PredictSetStore.open(folder) as store:
            expected[store.get_many(USERS).codes.tobytes()] = folder.name
    publish(first, place)
    readers = [open_store(place, "h") for _ in range(3)]
    stop, seen, failed = threading.Event(), [[] for _ in readers], []

    def read(number: int) -> None:
        try:
            while not stop.is_set():
                sets = readers[number].get_many(USERS)
                assert sets.found.all()
                seen[number].append(expected[sets.codes.tobytes()])
                assert readers[number].get("ann") is not None
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(6):
        publish((second, first)[number % 2], place, grace=0)
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    for one in seen:
        assert set(one) == {"1", "2"}
    assert not readers[0].changed()
    assert readers[0].version == PredictSetStore.open(first).version


def test_a_reader_does_not_follow_to_another_model(server: Server, tmp_path: Path) -> None:
    """The threshold belongs to the model: the old version is read as long as it is there, then nothing."""
    old, new, place = tmp_path / "old", tmp_path / "new", server.address("model")
    fill(old, ["ann"])
    fill(new, ["bob"], origin=replace(ORIGIN, model_version="retrained"))
    publish(old, place)
    reader = open_store(place, "h")
    assert publish(new, place, grace=1).lines()[0].endswith("; the version before stays for 1 s")
    assert reader.changed()
    assert reader.get("ann") is not None
    assert reader.get("bob") is None
    assert open_store(place, "h").get("bob") is not None
    until = time.monotonic() + 10
    gone = r"the new one is not of this model and these tables\. Load the filter again"

    def read_on() -> None:
        while time.monotonic() < until:
            assert reader.get("ann") is not None, "whole, as long as it answers at all"
            time.sleep(0.01)

    with pytest.raises(StoreUnavailableError, match=gone):
        read_on()
    assert reader.changed()
    fill(new, ["cat"], seed=5)
    publish(new, place)
    assert not reader.changed(), "a version of its own model again"
    assert reader.get("cat") is not None


def test_the_server_goes_and_comes_back(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, USERS)
    place = server.address("away")
    publish(tmp_path, place)
    reader = open_store(place, "h")
    assert reader.get("ann") is not None
    server.kill()
    for ask in (
        lambda: reader.get("ann"),
        lambda: reader.get_many(USERS),
        reader.changed,
        lambda: [*reader.user_ids()],
    ):
        begin = time.perf_counter()
        with pytest.raises(StoreUnavailableError, match=r"does not answer as it should|did not answer a moment ago"):
            ask()
        assert time.perf_counter() - begin < 1
    with pytest.raises(StoreUnavailableError, match="Connection"):
        open_store(place)
    with pytest.raises(StoreUnavailableError, match="Connection"):
        publish(tmp_path, place)
    server.start()
    time.sleep(0.25)
    with pytest.raises(StoreUnavailableError, match="the version that was read is gone, and there is no other"):
        reader.get("ann")
    publish(tmp_path, place)
    assert reader.get("ann") is not None


def test_a_server_that_is_silent_is_not_waited_for_twice(tmp_path: Path) -> None:
    """Connections are taken and never answered: one time-out, then at once, then asked again."""
    pytest.importorskip("valkey")
    import socket  # noqa: PLC0415

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        store = object.__new__(ValkeyStore)
        place = Address.parse(f"valkey://127.0.0.1:{port}/x?timeout=0.1")
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            store.__init__(place, place.connect(), lambda meta: None)  # type: ignore[misc]
        begin = time.perf_counter()
        with pytest.raises(StoreUnavailableError, match="a moment ago"):
            store.changed()
        assert time.perf_counter() - begin < 0.05
        time.sleep(0.25)
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            store.changed()
        store.close()


@pytest.mark.parametrize("damage", ["cut", "foreign", "of another user", "changed", "empty", "a list"])
def test_a_damaged_record_is_no_predict_set(server: Server, tmp_path: Path, damage: str) -> None:
    fill(tmp_path, ["ann", "bob"])
    place = server.address("damage")
    publish(tmp_path, place)
    reader = open_store(place)
    prefix = Names("damage").of(reader.version)
    with Address.parse(place).connect() as client:
        whole, other = client.get(prefix + b"uann"), client.get(prefix + b"ubob")
        put = {
            "cut": whole[:-7],
            "foreign": b"\xff" * len(whole),
            "of another user": other,
            "changed": whole[:9] + bytes([whole[9] ^ 1]) + whole[10:],
            "empty": b"",
        }
        client.delete(prefix + b"uann")
        if damage == "a list":
            client.rpush(prefix + b"uann", "x")
            assert reader.get("ann") is None, "no record at all"
            client.delete(prefix + b"uann")
        else:
            client.set(prefix + b"uann", put[damage])
            with pytest.raises(StoreUnavailableError, match=r"uann' is damaged. Publish the store again"):
                reader.get("ann")
            with pytest.raises(StoreUnavailableError, match="damaged"):
                reader.get_many(["bob", "ann"])
        assert reader.get("bob") is not None
        too_short = b"\x01\x02"
        client.set(prefix + b"ubob", sealed(b"ubob", too_short))
        with pytest.raises(StoreUnavailableError, match="damaged"):
            reader.get("bob")
    publish(tmp_path, place)
    assert reader.get_many(["ann", "bob"]).found.all(), "publishing again mends it"


def test_damaged_meta_data_is_refused(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, ["ann"])
    place = server.address("meta")
    publish(tmp_path, place)
    reader = open_store(place)
    names = Names("meta")
    key = names.of(reader.version) + b"meta"
    with Address.parse(place).connect() as client:
        text = client.get(key)
        content = json.loads(text)
        older = {**content, "meta": {**content["meta"], "version": 1}}
        for wrong, says in (
            (b"{", "damaged"),
            (b"[]", "damaged"),
            (b'{"meta": 3}', "damaged"),
            (json.dumps({**content, "version": "0" * 64}).encode(), "damaged"),
            (json.dumps({**content, "meta": {**content["meta"], "slots": 0}}).encode(), "damaged"),
            (json.dumps(older).encode(), "format version 1; expected format"),
        ):
            client.set(key, wrong)
            with pytest.raises(ArtefactError, match=says):
                open_store(place)
        client.delete(key)
        with pytest.raises(ArtefactError, match="its meta data is missing"):
            open_store(place)
        client.set(key, text)
        client.set(names.current, "\udcff".encode("utf-8", "surrogateescape"))
        assert reader.changed()
        assert reader.get("ann") is not None, "its own version is still there"
        with pytest.raises(ArtefactError, match="meta data is missing"):
            open_store(place)


def test_what_a_killed_publisher_left_is_removed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, place = tmp_path / "old", tmp_path / "new", server.address("killed")
    fill(old, USERS)
    fill(new, USERS, seed=3)
    publish(old, place)
    reader = open_store(place)
    with monkeypatch.context() as patch:

        class KilledError(BaseException):
            pass

        def killed(*_: object) -> bytes:
            raise KilledError

        patch.setattr(publishing.ServedVersion, "to_bytes", killed)
        with pytest.raises(KilledError):
            publish(new, place)
    half = Names("killed").of(PredictSetStore.open(new).version)
    assert any(key.startswith(half) for key in keys_of(server, "killed"))
    assert reader.get("ann") is not None
    assert not reader.changed()
    fill(new, USERS, seed=4)
    publish(new, place, grace=0)
    left = {key.split(b":")[2] for key in keys_of(server, "killed")}
    current = PredictSetStore.open(new).version[:16].encode()
    retired = PredictSetStore.open(old).version[:16].encode()
    assert left <= {b"current", b"versions", current, retired}
    assert reader.version == PredictSetStore.open(old).version
    assert reader.get("ann") is not None
    assert reader.version == PredictSetStore.open(new).version


def test_two_publishers_at_once(server: Server, tmp_path: Path) -> None:
    fill(tmp_path, ["ann"])
    place = server.address("two")
    with Address.parse(place).connect() as client:
        client.set(Names("two").lock, "somebody", ex=60)
        with pytest.raises(RunLockedError, match="another process publishes this store"):
            publish(tmp_path, place)
        assert client.get(Names("two").lock) == b"somebody"
        client.delete(Names("two").lock)
        publish(tmp_path, place)
        assert client.exists(Names("two").lock) == 0


@pytest.mark.parametrize("moment", ["loading", "loaded", "switched"])
@pytest.mark.parametrize("other", ["is done", "works", "was killed", "is none", "publishes the same"])
def test_a_publisher_that_stood_still_changes_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, other: str
) -> None:
    """Its lock is void; another publisher has removed what it had loaded, and may have come and gone."""
    late, soon, name = tmp_path / "late", tmp_path / "soon", f"still-{moment}-{other.replace(' ', '-')}"
    place, names = server.address(name), Names(name)
    fill(late, USERS)
    fill(soon, USERS, seed=0 if other == "publishes the same" else 3)
    monkeypatch.setattr(publishing, "_BATCH", 100)
    plain = {"sealed": publishing.sealed, "sweep": publishing._Publisher._sweep}
    to_bytes, calls = publishing.ServedVersion.to_bytes, 0

    def stand_still() -> None:
        nonlocal calls
        calls += 1
        if calls != (150 if moment == "loading" else 1):
            return
        with Address.parse(place).connect() as client:
            client.delete(names.lock)  # it ran out
            if other != "is none":
                publish(soon, place, grace=1000)
            if other == "works":
                client.set(names.lock, "another", ex=60)
            if other == "was killed":
                client.hset(names.versions, "f" * 64, b"loading")
        before.update(contents(server, name))

    def slow_seal(key: bytes, value: bytes) -> bytes:
        stand_still()
        return plain["sealed"](key, value)

    def slow_meta(version: str, meta: StoreMeta) -> bytes:
        stand_still()
        return to_bytes(version, meta)

    def slow_sweep(*given: object) -> None:
        stand_still()
        plain["sweep"](*given)

    before: dict[bytes, object] = {}
    if moment == "switched":
        fill(tmp_path / "first", ["ann"], seed=9)
        publish(tmp_path / "first", place, grace=1000)
    with monkeypatch.context() as patch:
        if moment == "loading":
            patch.setattr(publishing, "sealed", slow_seal)
        elif moment == "loaded":
            patch.setattr(publishing.ServedVersion, "to_bytes", slow_meta)
        else:
            patch.setattr(publishing._Publisher, "_sweep", slow_sweep)
        with pytest.raises(RunLockedError, match="stood still for more than 60 seconds and has lost its lock"):
            publish(late, place)
    assert contents(server, name) == before, "as it was when the lock was lost"
    if other != "is none":
        reader = open_store(place)
        assert reader.version == PredictSetStore.open(soon).version
        assert reader.get_many(USERS).found.all()
    with Address.parse(place).connect() as client:
        client.delete(names.lock)
    publish(late, place, grace=0)
    assert open_store(place).get_many(USERS).found.all()
    assert open_store(place).version == PredictSetStore.open(late).version


def test_a_server_that_is_full_keeps_the_old_version(server: Server, tmp_path: Path) -> None:
    old, new, place = tmp_path / "old", tmp_path / "new", server.address("full")
    fill(old, ["ann"])
    fill(new, USERS, seed=3)
    publish(old, place)
    with Address.parse(place).connect() as client:
        client.config_set("maxmemory", "1mb")
        try:
            with pytest.raises(StoreUnavailableError, match=r"OutOfMemory|OOM"):
                publish(new, place)
            assert open_store(place).get("ann") is not None
        finally:
            client.config_set("maxmemory", "0")
            client.delete(Names("full").lock)
    publish(new, place)
    assert open_store(place).get("bob") is not None


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_address("valkey://h/x")
    assert not is_address("runs/ml-100k/filter/conrec")
    assert not is_address(Path("valkey://h/x"))
    full = Address.parse("rediss://me:s%40crt@[::1]:7000/My.store-1?db=3&timeout=0.5")
    assert full == Address("::1", 7000, "My.store-1", 3, True, "me", "s@crt", 0.5)
    assert str(full) == "valkeys://[::1]:7000/My.store-1"
    monkeypatch.setenv("CONREC_VALKEY_PASSWORD", "of the environment")
    assert Address.parse("valkey://h/x") == Address("h", 6379, "x", password="of the environment")
    assert Address.parse("valkey://:mine@h/x").password == "mine"
    for wrong in (
        "http://h/x",
        "valkey://h",
        "valkey://h/x/y",
        "valkey://h/a*",
        "valkey://h:port/x",
        "valkey:///x",
        "valkey://h/x?db=-1",
        "valkey://h/x?timeout=0",
        "valkey://h/x?timeout=soon",
        "valkey://h/x?other=1",
        "valkey://[/x",
    ):
        with pytest.raises(ConfigError, match=r"is no address of a store; expected valkey://"):
            Address.parse(wrong)
    with pytest.raises(ConfigError) as caught:
        Address.parse("valkey://me:secret@h")
    assert "secret" not in str(caught.value)


def test_a_missing_package_and_a_negative_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="-1 seconds"):
        publish(tmp_path, "valkey://h/x", grace=-1)
    monkeypatch.setitem(__import__("sys").modules, "valkey", None)
    with pytest.raises(MissingExtraError, match=r"conrec\[valkey\]"):
        open_store("valkey://h/x")
    assert address_module.TIMEOUT == 0.05


def test_the_filter_reads_from_the_server(server: Server, circle_run: Callable[[float | None], Path]) -> None:
    """`conrec filter publish`, then the same decisions as from the run's folder; without the server all is kept."""
    run, place = circle_run(0.9), server.address("circle")
    done = CliRunner().invoke(app, ["filter", "publish", "--run", str(run), "--to", place])
    assert done.exit_code == 0, done.output
    assert "circle, 5 users, version" in done.output.replace("\n", " ")
    folder, remote = NegativeFilter.load(run), NegativeFilter.load(run, store=place)
    pairs = [(user, item) for user in (*USERS_OF_THE_CIRCLE, "nobody") for item in (*ITEMS, "?")]
    users, items = zip(*pairs, strict=True)
    one, other = folder.decide(users, items), remote.decide(users, items)
    np.testing.assert_array_equal(one.similarity, other.similarity)
    np.testing.assert_array_equal(one.reason, other.reason)
    assert one.dropped.any()
    with Address.parse(place).connect() as client:
        client.delete(Names("circle").current, Names("circle").of(remote.store.version) + b"meta")
    kept = remote.filter("ann", ITEMS)
    assert not kept.dropped
    assert {decision.reason for decision in kept.kept} == {"kept: store unreachable"}

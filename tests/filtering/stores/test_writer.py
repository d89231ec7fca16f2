"""Bulk writing: blocks of any size give one store; a writer that is killed, or a full disk, leaves the old one."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.artefacts import hash_file
from conrec.errors import ArtefactError, DataError, RunLockedError
from conrec.filtering.stores.base import Origin
from conrec.filtering.stores.files import HEADER
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.writer import BulkWriter, SetBlock, write_blocks, write_store
from tests.filtering.stores.conftest import ORIGIN, fill, random_sets

HOUR = 3600


def blocks(users: list[str], size: int, seed: int = 0, at: int = 360_000) -> Iterator[SetBlock]:
    """The sets of `conftest.random_sets` in blocks; each user was predicted an hour before the one before."""
    codes, scores = random_sets(len(users), 3, seed)
    times = at - HOUR * np.arange(len(users), dtype=np.int64)
    for start in range(0, len(users), size):
        some = slice(start, start + size)
        yield SetBlock(pa.array(users[some]), codes[some], scores[some], times[some])


def test_blocks_of_any_size_give_the_same_bytes(tmp_path: Path) -> None:
    """And each user keeps his own time, to the hour, up to 3.7 years before the newest."""
    users = [f"{number * 7919 % 100_003}" for number in range(2000)] + ["ü" * 600]
    hashes = set()
    for size in (1, 999, 5000):
        meta = write_blocks(tmp_path / str(size), blocks(users, size), ORIGIN, slots=3, written_at=999)
        hashes.add(hash_file(tmp_path / str(size)))
    assert len(hashes) == 1
    assert (meta.newest, meta.count, meta.written_at) == (360_000, 2001, 999)
    sets = PredictSetStore.open(tmp_path / "999").get_many(users)
    np.testing.assert_array_equal(sets.codes, random_sets(2001, 3)[0])
    np.testing.assert_array_equal(sets.predicted_at, 360_000 - HOUR * np.arange(2001))
    old = SetBlock(pa.array(["a", "b"]), *random_sets(2, 3), np.asarray([0, 40_000 * HOUR + 1799]))
    write_blocks(tmp_path / "old", [old], ORIGIN, slots=3)
    times = PredictSetStore.open(tmp_path / "old").get_many(["a", "b"]).predicted_at
    assert times.tolist() == [(40_000 - 32_767) * HOUR, 40_000 * HOUR]


def test_users_may_be_numbers_in_arrow_or_in_pieces(tmp_path: Path) -> None:
    codes, scores = random_sets(3, 3)
    times = np.zeros(3, dtype=np.int64)
    for number, ids in enumerate((pa.array(["1", "2", "3"], pa.string_view()), pa.array([1, 2, 3]))):
        write_blocks(tmp_path / str(number), [SetBlock(ids, codes, scores, times)], ORIGIN, slots=3, written_at=0)
        assert list(PredictSetStore.open(tmp_path / str(number)).user_ids()) == ["1", "2", "3"]


def test_an_empty_store_is_one(tmp_path: Path) -> None:
    meta = write_blocks(tmp_path / "s", [], ORIGIN, slots=3, written_at=7201)
    assert (meta.count, meta.newest) == (0, 7200)
    store = PredictSetStore.open(tmp_path / "s")
    assert store.get("ann") is None
    assert store.get_many(["ann"]).codes.tolist() == [[[-1] * 3] * 3]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 40), unique=True, max_size=20),
    st.lists(st.integers(0, 40), unique=True, max_size=20),
    st.integers(-50, 50),
    st.booleans(),
)
def test_users_of_an_older_store_stay(
    tmp_path_factory: pytest.TempPathFactory, new: list[int], old: list[int], later: int, long: bool
) -> None:
    """As a dictionary would: what is new wins, what is not stays with its time; the bytes are those of one writing."""
    folder = tmp_path_factory.mktemp("keep")
    names = [f"user {number:02d}" + "x" * (600 if long and number % 3 == 0 else 0) for number in range(41)]
    known = [names[number] for number in old]
    write_blocks(folder / "old", blocks(known, 7, seed=1), ORIGIN, slots=3, written_at=5)
    fresh, at = [names[number] for number in new], 360_000 + later * HOUR
    with PredictSetStore.open(folder / "old") as store:
        meta = write_blocks(folder / "both", blocks(fresh, 7, 2, at), ORIGIN, slots=3, written_at=6, keep=store)
        old_sets = store.get_many(known)
    with PredictSetStore.open(folder / "both") as both:
        assert meta.count == len(both) == len({*known, *fresh})
        assert set(both.user_ids()) == {*known, *fresh}
        assert both.holds([*known, "nobody", *fresh]).tolist() == [True] * len(known) + [False] + [True] * len(fresh)
        merged = both.get_many(known)
        untouched = np.asarray([user not in fresh for user in known], dtype=bool)
        for name in ("codes", "scores", "predicted_at"):
            np.testing.assert_array_equal(getattr(merged, name)[untouched], getattr(old_sets, name)[untouched])
        np.testing.assert_array_equal(both.get_many(fresh).codes, random_sets(len(fresh), 3, 2)[0])
        everybody = [*known, *fresh]
        everything = both.get_many(list(dict.fromkeys(everybody)))
    again = SetBlock(
        pa.array(list(dict.fromkeys(everybody)), pa.string()),
        everything.codes,
        everything.scores,
        everything.predicted_at,
    )
    write_blocks(folder / "once", [again], ORIGIN, slots=3, written_at=6)
    if everybody and meta.newest == everything.predicted_at.max():  # the newest of the old ones was not replaced
        assert hash_file(folder / "once") == hash_file(folder / "both")


def test_an_older_store_of_another_width(tmp_path: Path) -> None:
    fill(tmp_path / "old", ["ann", "bob"])
    for slots in (2, 5):
        with PredictSetStore.open(tmp_path / "old") as store:
            wide = SetBlock(pa.array(["cat"]), *random_sets(1, slots, 9), np.asarray([72_000]))
            write_blocks(tmp_path / str(slots), [wide], ORIGIN, slots=slots, keep=store)
            before = store.get("ann")
        after = PredictSetStore.open(tmp_path / str(slots)).get("ann")
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(after.codes, before.codes[:slots])
        assert after.predicted_at == before.predicted_at == 36_000


def test_blocks_that_do_not_fit(tmp_path: Path) -> None:
    codes, scores = random_sets(2, 3)
    good = SetBlock(pa.array(["a", "b"]), codes, scores, np.zeros(2, dtype=np.int64))
    for wrong, says in (
        (replace(good, codes=codes[:, :2]), "one row for each user, of 3 slots and 3 levels"),
        (replace(good, scores=scores[:1]), "one row for each user"),
        (replace(good, predicted_at=np.zeros(1, dtype=np.int64)), "one row for each user"),
        (replace(good, codes=codes.astype(float)), "one row for each user"),
        (replace(good, user_ids=pa.array(["a", None])), "user ID is empty"),
        (replace(good, user_ids=pa.array(["a", "a"])), "the user 'a' comes twice"),
        (replace(good, user_ids=pa.array(["x" * 900] * 2)), "the user 'x+' comes twice"),
        (replace(good, codes=codes + 64), "the user 'a' has the codes"),
    ):
        with pytest.raises(DataError, match=says):
            write_blocks(tmp_path / "s", [wrong], ORIGIN, slots=3)
    with pytest.raises(DataError, match="'b' comes twice"):
        write_blocks(tmp_path / "s", [good, replace(good, user_ids=pa.array(["c", "b"]))], ORIGIN, slots=3)
    with pytest.raises(DataError, match="256 slots"):
        BulkWriter(tmp_path / "s", ORIGIN, slots=256)
    assert not (tmp_path / "s").exists()


WRITER = """
import sys
from pathlib import Path
import numpy as np
import pyarrow as pa
from conrec.filtering.stores.base import Origin
from conrec.filtering.stores.writer import SetBlock, write_blocks

def blocks():
    rng = np.random.default_rng(0)
    for block in range(8):
        users = pa.array([f"{block}-{number}" for number in range(5000)])
        codes = rng.integers(0, 64, (5000, 20, 3), dtype=np.int32)
        print("block", flush=True)
        yield SetBlock(users, codes, np.zeros((5000, 20)), np.full(5000, 7))
    print("writing", flush=True)

write_blocks(Path(sys.argv[1]), blocks(), Origin("m", "w", "h", "c", (64, 64, 64)), slots=20)
print("done", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("moment", ["block", "writing", "first file", "trimmed copy"])
def test_a_killed_writer_leaves_the_old_store(tmp_path: Path, moment: str) -> None:
    """Killed while blocks come in, or while one of its two files grows; the next writer clears its leftovers away."""
    folder = tmp_path / "s"
    fill(folder, ["ann"])
    before = hash_file(folder / HEADER)
    with subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if line.strip() == ("block" if moment == "block" else "writing"):
                break
        suffix = {"first file": ".tmp", "trimmed copy": ".trimmed"}.get(moment)
        until = time.monotonic() + 30
        while suffix is not None and time.monotonic() < until and writer.poll() is None:
            if any(one.suffix == suffix and one.stat().st_size > 50_000 for one in folder.iterdir()):
                break
        writer.send_signal(signal.SIGKILL)
    if writer.returncode != 0:  # on a slow day it may have been done before it was killed
        assert hash_file(folder / HEADER) == before
        assert PredictSetStore.open(folder).get("ann") is not None
    fill(folder, ["bob"])
    assert sorted(one.name if one.name == ".lock" else one.suffix for one in folder.iterdir()) == [
        ".json",
        ".lock",
        ".mdb",
    ]
    assert PredictSetStore.open(folder).get("bob") is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of this kind")
def test_a_disk_that_fills_in_the_middle_of_a_bulk_write(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    fill(folder, ["ann"])
    before = hash_file(folder)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    done = subprocess.run(
        [sys.executable, "-c", WRITER, folder], preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "OSError: [Errno 27] File too large" in done.stderr or "No space left" in done.stderr
    assert hash_file(folder) == before, "nothing of it is left"


RIVAL = """
import sys
from pathlib import Path
import numpy as np
from conrec.errors import RunLockedError
from conrec.filtering.stores.base import Origin
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.writer import write_store

folder, mine = Path(sys.argv[1]), sys.argv[2]
written = refused = 0
print("ready", flush=True)
sys.stdin.readline()
for number in range(1_000_000):
    try:
        users = [f"{mine}{number}", *(f"{other}" for other in range(500))]
        sets = np.zeros((501, 3, 3), int), np.zeros((501, 3))
        write_store(folder, users, *sets, Origin("m", "w", "h", "c", (4, 4, 4)))
        written += 1
    except RunLockedError:
        refused += 1
    PredictSetStore.open(folder).close()
    if written >= 15 and (refused or number > 500):
        break
print(written, refused)
"""


def test_two_writers_at_once(tmp_path: Path) -> None:
    """One writes, the other is told; what store.json names is there at every moment."""
    fill(tmp_path, ["ann"])
    run = [sys.executable, "-c", RIVAL, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    rivals = [subprocess.Popen([*run, name], text=True, **pipes) for name in ("a", "b")]
    for rival in rivals:
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("\n")
        rival.stdin.flush()
    refused = 0
    for rival in rivals:
        out, errors = rival.communicate(timeout=60)
        assert rival.returncode == 0, errors
        written, more = map(int, out.split())
        refused += more
        assert written >= 15
    assert refused > 0, "they met"
    assert len(PredictSetStore.open(tmp_path)) == 501
    assert len(list(tmp_path.glob("*.mdb"))) == 1


def test_users_are_not_kept_from_a_store_that_was_replaced_meanwhile(tmp_path: Path) -> None:
    fill(tmp_path, ["ann"])
    with PredictSetStore.open(tmp_path) as old:
        fill(tmp_path, ["ann", "bob"])
        with pytest.raises(RunLockedError, match="has replaced the store whose users are kept"):
            write_blocks(tmp_path, blocks(["cat"], 1), ORIGIN, slots=3, keep=old)
    assert list(PredictSetStore.open(tmp_path).user_ids()) == ["ann", "bob"]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_data_file_is_in_the_folder_before_what_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a machine that stops: a rename is sure once its folder was flushed."""
    done: list[str] = []
    replaced, flushed = Path.replace, os.fsync

    def rename(path: Path, target: Path) -> Path:
        done.append(Path(target).suffix)
        return replaced(path, target)

    def flush(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flushed(descriptor)

    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(os, "fsync", flush)
    fill(tmp_path, ["ann"])
    assert done == ["file", ".mdb", "folder", "file", ".json", "folder"]


READER = """
import sys
from pathlib import Path
from conrec.filtering.stores.lmdb import PredictSetStore

folder, seen, store = Path(sys.argv[1]), set(), None
print("ready", flush=True)
while not (folder / "stop").exists():
    if store is None or store.changed():
        store = PredictSetStore.open(folder, "h")
    one = store.get("ann")
    sets = store.get_many(["ann", "bob"])
    assert sets.found.all() and (sets.codes[0] == one.codes).all(), "one version at a time"
    assert len({*map(tuple, sets.codes.reshape(-1, 3).tolist())}) == 1, "whole"
    seen.add(int(one.codes[0, 0]))
print(len(seen))
"""


def test_readers_in_other_processes_during_switches(tmp_path: Path) -> None:
    """Each answer is of one version; readers find out for themselves that there is another."""
    origin = Origin("m", "w", "h", "c", (64, 64, 64))

    def put(number: int) -> None:
        write_store(tmp_path, ["ann", "bob"], np.full((2, 3, 3), number), np.zeros((2, 3)), origin, written_at=number)

    put(0)
    run = [sys.executable, "-c", READER, str(tmp_path)]
    readers = [subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    for number in range(1, 20):
        put(number)
        time.sleep(0.02)
    (tmp_path / "stop").touch()
    for reader in readers:
        out, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors
        assert int(out) > 3, "it saw several versions"


def test_a_store_cut_in_half_while_it_is_read(tmp_path: Path) -> None:
    """Renamed over, as every writer does: whoever has it open reads on; whoever opens it is told."""
    fill(tmp_path, ["ann"])
    reader = PredictSetStore.open(tmp_path)
    (data,) = tmp_path.glob("*.mdb")
    half = tmp_path / "half"
    half.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    os.replace(half, data)
    assert reader.get("ann") is not None
    with pytest.raises(ArtefactError, match="bytes; expected"):
        PredictSetStore.open(tmp_path)
    assert not reader.changed()
    fill(tmp_path, ["ann"])
    assert PredictSetStore.open(tmp_path).get("ann") is not None

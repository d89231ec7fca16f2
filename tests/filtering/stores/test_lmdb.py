"""The predict-set store: what goes in comes out, and what is damaged is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Array
from conrec.artefacts import hash_file
from conrec.errors import ArtefactError, DataError
from conrec.filtering.stores import files as files_module
from conrec.filtering.stores.base import Origin
from conrec.filtering.stores.layout import Layout
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.writer import write_store


def fill(folder: Path, users: list[str], codes: Array, scores: Array, sid_hash: str = "h", at: int = 7) -> None:
    sizes = (64,) * 3 if codes.shape[2] == 3 else (64, 64, 64, 901)
    write_store(folder, users, codes, scores, Origin("m", "w", sid_hash, "c", sizes), written_at=at)


def random_sets(n: int, slots: int = 20, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 64, (n, slots, 3)).astype(np.int32), rng.normal(size=(n, slots)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=800), unique=True, max_size=6), st.integers(1, 25))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, users: list[str], slots: int) -> None:
    users = [user.encode("utf-8", "ignore").decode() or f"u{place}" for place, user in enumerate(users)]
    users = list(dict.fromkeys(users))
    folder = tmp_path_factory.mktemp("store")
    codes, scores = random_sets(len(users), slots)
    fill(folder, users, codes, scores)
    with PredictSetStore.open(folder, "h") as store:
        assert len(store) == len(users)
        for row, user in enumerate(users):
            found = store.get(user)
            assert found is not None
            np.testing.assert_array_equal(found.codes, codes[row])
            spread = scores[row].max() - scores[row].min()
            np.testing.assert_allclose(found.scores, scores[row], atol=spread / 510 + 2**-11 * np.abs(scores).max())
        assert store.get("nobody of this name") is None


def test_empty_slots_are_left_out_and_an_empty_set_is_a_known_user(tmp_path: Path) -> None:
    codes = np.asarray([[[1, 2, 3], [-1, -1, -1], [4, 5, 6]], [[-1, -1, -1]] * 3])
    fill(tmp_path / "s", ["a", "b"], codes, np.asarray([[0.5, np.nan, 0.25], [np.nan] * 3]))
    store = PredictSetStore.open(tmp_path / "s")
    first, second = store.get("a"), store.get("b")
    assert first is not None
    assert first.texts() == ["a_1 b_2 c_3", "a_4 b_5 c_6"]
    assert first.scores.tolist() == [0.5, 0.25]
    assert second is not None
    assert len(second) == 0


def test_meta_says_what_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    meta = PredictSetStore.open(tmp_path / "s", "h").meta
    assert (meta.model, meta.model_version, meta.sid_hash, meta.codebook_hash) == ("m", "w", "h", "c")
    assert (meta.sizes, meta.levels, meta.codebook_size, meta.written_at, meta.count, meta.slots) == (
        ((64, 64, 64), 3, 64, 7, 1, 20)
    )


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    """Read by other code, from the description alone."""
    long = "ü" * 400
    fill(tmp_path / "s", ["ann", long], np.asarray([[[1, 2, 3]], [[4, 5, 6]]]), np.asarray([[0.5], [-2.0]]))
    header = json.loads((tmp_path / "s" / "store.json").read_text())
    file = str(tmp_path / "s" / header["file"])
    with lmdb.open(file, readonly=True, lock=False, subdir=False) as environment, environment.begin() as transaction:
        content = dict(transaction.cursor())

    def record(a: int, b: int, c: int, score: float) -> bytes:
        """Three codes of six bits, low bits first; a set of one has its score as both ends."""
        codes = (a + (b << 6) + (c << 12)).to_bytes(3, "little")
        return struct.pack("<BHee", 1, 0, score, score) + codes + b"\0"

    assert content.pop(b"uann") == record(1, 2, 3, 0.5)
    about = dict(header["meta"])
    assert about.pop("written_at") == 7
    assert json.loads(content.pop(b"meta")) == about
    ((key, value),) = content.items()
    assert key == b"h" + hashlib.sha256(long.encode()).digest()
    assert value == record(4, 5, 6, -2.0) + long.encode()


def test_the_same_content_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    users = [f"user {number}" for number in range(3000)]
    codes, scores = random_sets(3000)
    fill(tmp_path / "a", users, codes, scores)
    order = np.random.default_rng(1).permutation(3000)
    fill(tmp_path / "b", [users[row] for row in order], codes[order], scores[order])
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "b")
    size = next((tmp_path / "a").glob("*.mdb")).stat().st_size
    assert size < 3000 * Layout.of(20, (64,) * 3).size * 1.5, "the file is trimmed to its content"


def test_a_store_is_replaced_and_readers_of_the_old_one_go_on(tmp_path: Path) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    old = PredictSetStore.open(tmp_path / "s")
    (tmp_path / "s" / ".deadbeef.tmp").write_bytes(b"left by a killed writer")
    fill(tmp_path / "s", ["b"], *random_sets(1, seed=1))
    assert old.get("a") is not None
    new = PredictSetStore.open(tmp_path / "s")
    assert new.get("a") is None
    assert new.get("b") is not None
    assert len(list((tmp_path / "s").iterdir())) == 3, "store.json, the data file, the lock"


def test_a_writer_that_fails_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    before = hash_file(tmp_path / "s")

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("hash_file", "write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(files_module, name, full_disk)
            with pytest.raises(OSError, match="No space"):
                fill(tmp_path / "s", ["b"], *random_sets(1, seed=1))
        store = PredictSetStore.open(tmp_path / "s")
        assert store.get("a") is not None
    fill(tmp_path / "s", ["a"], *random_sets(1))
    assert hash_file(tmp_path / "s") == before


def test_two_readers_in_one_process(tmp_path: Path) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    first, second = PredictSetStore.open(tmp_path / "s"), PredictSetStore.open(tmp_path / "s")
    first.close()
    assert second.get("a") is not None
    with pytest.raises(ArtefactError, match="was closed"):
        first.get("a")


def test_damage_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    with pytest.raises(ArtefactError, match="there is no predict-set store"):
        PredictSetStore.open(folder)
    fill(folder, ["a", "b"], *random_sets(2))
    with pytest.raises(ArtefactError, match="SID table"):
        PredictSetStore.open(folder, "another")
    with pytest.raises(ArtefactError, match="SID table"):
        PredictSetStore.open(folder, "another", ["one more"])
    with pytest.raises(ArtefactError, match="codebooks c…; expected the codebooks of this run, d…"):
        PredictSetStore.open(folder, "h", codebook_hash="d")
    assert len(PredictSetStore.open(folder, "another", ["h"], codebook_hash="c")) == 2
    data, header = next(folder.glob("*.mdb")), folder / "store.json"
    whole, text = data.read_bytes(), header.read_text()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match=f"has {len(whole) // 2} bytes; expected {len(whole)}"):
        PredictSetStore.open(folder)
    data.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(ArtefactError, match="checksum"):
        PredictSetStore.open(folder)
    data.unlink()
    with pytest.raises(ArtefactError, match="is missing"):
        PredictSetStore.open(folder)
    data.write_bytes(whole)
    for damaged, says in (
        ("{", "JSON"),
        ("[]", "not the header"),
        (text.replace("conrec-predict-sets", "other"), "not the header"),
        (
            text.replace('"version": 2', '"version": 1'),
            "version 1; expected 2. Give the command of the run again",
        ),
        (text.replace('"version": 2', '"version": 3'), "format version 3"),
        (text.replace('"slots": 20', '"slots": true'), "damaged"),
        (text.replace('"sid_hash"', '"hash"'), "damaged"),
        (re.sub(r'"sizes": \[[^]]*\]', '"sizes": []', text), "damaged"),
        (text.replace('"bytes"', '"octets"'), "damaged"),
        (text.replace(data.name, "../" + data.name), "damaged"),
        (text.replace('"model": "m"', '"model": 3'), "damaged"),
        (text.replace('"model": "m"', '"model": "n"'), "not that of store.json"),
    ):
        assert damaged != text
        header.write_text(damaged)
        with pytest.raises(ArtefactError, match=says):
            PredictSetStore.open(folder)
    header.unlink()
    with pytest.raises(ArtefactError, match=r"store\.json: this file is missing"):
        PredictSetStore.open(folder)


def test_a_file_that_is_not_lmdb_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    data, header = next((tmp_path / "s").glob("*.mdb")), tmp_path / "s" / "store.json"
    content = json.loads(header.read_text())
    data.write_bytes(os.urandom(content["bytes"]))
    content["sha256"] = hash_file(data)
    header.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match="cannot be opened as LMDB"):
        PredictSetStore.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("users", "codes", "says"),
    [
        (["a", "a"], [[[1, 1, 1]], [[1, 1, 1]]], "comes twice"),
        (["a"], [[[1, 1, 1]], [[1, 1, 1]]], "one row for each user"),
        (["a"], [[[1, 64, 1]]], "codes from 0 to 63"),
        (["a"], [[[1, -1, 1]]], "or -1 in all of them"),
        ([""], [[[1, 1, 1]]], "user ID is empty"),
        (["\ud800"], [[[1, 1, 1]]], "not valid Unicode"),
    ],
)
def test_wrong_content_is_refused(tmp_path: Path, users: list[str], codes: list[list[list[int]]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        fill(tmp_path / "s", users, np.asarray(codes), np.zeros((len(codes), 1)))
    with pytest.raises(DataError, match="NaN"):
        fill(tmp_path / "s", ["a"], np.asarray([[[1, 1, 1]]]), np.asarray([[np.nan]]))
    assert not (tmp_path / "s").exists()


def test_semantic_ids_of_four_levels_are_stored(tmp_path: Path) -> None:
    """The fourth level has codes of its own number."""
    codes = np.asarray([[[1, 2, 3, 900], [-1] * 4, [4, 5, 6, 0]], [[-1] * 4] * 3], dtype=np.int32)
    fill(tmp_path / "four", ["a", "x" * 600], codes, np.asarray([[0.5, 0, 0.25], [0, 0, 0]]))
    store = PredictSetStore.open(tmp_path / "four", "h")
    assert store.meta.levels == 4
    first = store.get("a")
    assert first is not None
    assert first.texts() == ["a_1 b_2 c_3 d_900", "a_4 b_5 c_6 d_0"]
    assert first.scores.tolist() == [0.5, 0.25]
    stored = store.get_many(["x" * 600, "nobody", "a"])
    assert stored.found.tolist() == [True, False, True]
    assert stored.codes.shape == (3, 3, 4)
    assert stored.predicted_at.tolist() == [0, 0, 0]
    assert sorted(store.user_ids()) == ["a", "x" * 600]
    for wrong in ([1, 2, 64, 0], [1, 2, 3, 901]):
        with pytest.raises(DataError, match="codes from 0 to 63 / 63 / 63 / 900"):
            fill(tmp_path / "s", ["a"], np.asarray([[wrong]]), np.zeros((1, 1)))


def test_a_damaged_file_is_only_taken_on_trust_where_asked(tmp_path: Path) -> None:
    """Workers need not read again what the process that started them has verified; another version they do."""
    folder = tmp_path / "s"
    fill(folder, ["a"], *random_sets(1))
    version = PredictSetStore.open(folder).version
    header = json.loads((folder / "store.json").read_text())
    assert version == header["sha256"]
    data = folder / header["file"]
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert PredictSetStore.open(folder, verified=version).get("a") is not None
    for trusted in ("", "of another"):
        with pytest.raises(ArtefactError, match="checksum"):
            PredictSetStore.open(folder, verified=trusted)


def test_a_reader_knows_that_its_store_was_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    fill(folder, ["a"], *random_sets(1))
    reader = PredictSetStore.open(folder)
    assert not reader.changed()
    fill(folder, ["a"], *random_sets(1))
    assert not reader.changed(), "written again, the same"
    assert not reader.changed()
    write_store(folder, ["a"], *random_sets(1), Origin("m", "w", "h", "c", (64,) * 3), predicted_at=7, written_at=99)
    assert PredictSetStore.open(folder).version == reader.version, "the time of writing is no content"
    assert reader.meta.written_at == 7
    assert not reader.changed()
    assert reader.meta.written_at == 99
    fill(folder, ["b"], *random_sets(1, seed=1))
    assert reader.changed()
    assert reader.changed(), "until another reader is opened"
    assert not PredictSetStore.open(folder).changed()
    (folder / "store.json").write_text("{")
    assert not reader.changed(), "there is no other version that could be opened"
    (folder / "store.json").unlink()
    assert not reader.changed()
    assert reader.get("a") is not None


def test_a_store_whose_file_says_when_it_was_written_is_read(tmp_path: Path) -> None:
    """As the stores of version 2 did at first."""
    fill(tmp_path, ["a"], *random_sets(1))
    header = json.loads((tmp_path / "store.json").read_text())
    data = tmp_path / header["file"]
    with lmdb.open(str(data), lock=False, subdir=False, map_size=1 << 20) as environment:
        for inside, right in ((header["meta"], True), ({**header["meta"], "model": "n"}, False), ([], False)):
            with environment.begin(write=True) as transaction:
                transaction.put(b"meta", json.dumps(inside, sort_keys=True).encode())
            environment.sync()
            copy = tmp_path / ("right" if right else f"wrong {type(inside).__name__}")
            copy.mkdir()
            (copy / header["file"]).write_bytes(data.read_bytes())
            size, digest = data.stat().st_size, hash_file(data)
            (copy / "store.json").write_text(json.dumps({**header, "bytes": size, "sha256": digest}))
    assert PredictSetStore.open(tmp_path / "right").get("a") is not None
    for wrong in tmp_path.glob("wrong*"):
        with pytest.raises(ArtefactError, match="its meta data is not that of store"):
            PredictSetStore.open(wrong)


def test_odd_user_ids_are_unknown(tmp_path: Path) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    store = PredictSetStore.open(tmp_path / "s")
    odd = ["", "\ud800", "\0", "meta", "x" * 10_000_000]
    assert [store.get(one) for one in odd] == [None] * 5
    assert store.get_many([*odd, "a"]).found.tolist() == [False] * 5 + [True]
    assert len(store.get_many([])) == 0


def test_threads_share_a_reader(tmp_path: Path) -> None:
    users = [f"u{number}" for number in range(200)]
    codes, scores = random_sets(200)
    fill(tmp_path / "s", users, codes, scores)
    store = PredictSetStore.open(tmp_path / "s")

    def read(start: int) -> int:
        right = 0
        for row in range(start, start + 100):
            found = store.get(users[row])
            right += found is not None and bool((found.codes == codes[row]).all())
        return right

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, [0, 50, 100, 25])) == [100] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_its_own(tmp_path: Path) -> None:
    fill(tmp_path / "s", ["a"], *random_sets(1))
    store = PredictSetStore.open(tmp_path / "s")
    program = f"""
import os
from pathlib import Path
from conrec.filtering.stores.lmdb import PredictSetStore
parent = PredictSetStore.open(Path({str(tmp_path / "s")!r}))
assert parent.get("a") is not None
child = os.fork()
if child == 0:
    with PredictSetStore.open(parent.folder, verified=parent.version) as mine:
        os._exit(0 if mine.get("a") is not None and mine.get("b") is None else 1)
assert os.waitpid(child, 0)[1] == 0
assert parent.get("a") is not None
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert store.get("a") is not None

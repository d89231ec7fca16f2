"""Vectors are found again to the bit, whatever was killed, damaged or shared."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

from conrec.arrays import Array
from conrec.errors import ConfigError
from conrec.items.encoders import cache as module
from conrec.items.encoders.cache import VectorCache, content_key

KEYS = [content_key(name) for name in "abcd"]


class Encoder:
    """Rows that depend on their company, as those of a real one do in their last bits."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []

    def __call__(self, keys: list[bytes], dim: int = 3) -> Array:
        self.calls.append(keys)
        rows = np.asarray([[key[0], key[1], len(keys)] for key in keys], dtype=np.float32)
        return np.resize(rows, (len(keys), dim))


def ask(folder: Path, keys: list[bytes], encoder: Encoder, *, shared: bool = False, model: str = "m") -> Array:
    with VectorCache(folder, shared=shared, machine=("cpu", 1)) as cache:
        return cache.batch(model, keys, lambda: encoder(keys))


def test_parts_of_a_content_are_kept_apart() -> None:
    assert content_key("a", "b") != content_key("ab")
    assert content_key("a", "b") != content_key("", "ab")
    assert content_key("ä") == content_key("ä".encode())
    assert len(content_key("\ud800")) == 32


def test_found_again_to_the_bit(tmp_path: Path) -> None:
    encoder = Encoder()
    first = ask(tmp_path, KEYS, encoder)
    again = ask(tmp_path, KEYS, encoder)
    assert first.dtype == again.dtype == np.float32
    assert np.array_equal(first, again)
    assert encoder.calls == [KEYS]
    again[0] = 0  # what is given out may be written to
    ask(tmp_path, KEYS, encoder, model="other")
    assert len(encoder.calls) == 2


def test_a_runs_own_vectors_are_of_their_company_alone(tmp_path: Path) -> None:
    encoder = Encoder()
    two, four = ask(tmp_path, KEYS[:2], encoder), ask(tmp_path, KEYS, encoder)
    assert encoder.calls == [KEYS[:2], KEYS]
    assert np.array_equal(four, Encoder()(KEYS))
    assert np.array_equal(ask(tmp_path, KEYS[:2], encoder), two)
    with VectorCache(tmp_path, shared=False, machine=("cpu", 2)) as other_machine:
        other_machine.batch("m", KEYS, lambda: encoder(KEYS))
    assert len(encoder.calls) == 3


def test_shared_vectors_stay_as_they_were_first_computed(tmp_path: Path) -> None:
    """The whole batch is computed where one is missing, and what was there before wins: asked again, nothing moves."""
    encoder = Encoder()
    two = ask(tmp_path, KEYS[:2], encoder, shared=True)
    mixed = ask(tmp_path, KEYS, encoder, shared=True)
    assert encoder.calls == [KEYS[:2], KEYS]
    assert np.array_equal(mixed[:2], two)
    assert np.array_equal(mixed[2:], Encoder()(KEYS)[2:])
    assert np.array_equal(ask(tmp_path, KEYS[::-1], encoder, shared=True), mixed[::-1])
    assert len(encoder.calls) == 2


def test_a_batch_is_wholly_there_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(row: Array) -> bytes:
        if row[0] == KEYS[2][0]:
            raise KeyboardInterrupt
        return packed(row)

    packed = module._packed
    monkeypatch.setattr(module, "_packed", killed)
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path, KEYS, Encoder())
    monkeypatch.setattr(module, "_packed", packed)
    with lmdb.open(str(tmp_path / "vectors.mdb"), subdir=False) as environment:
        assert environment.stat()["entries"] == 0
    assert np.array_equal(ask(tmp_path, KEYS, Encoder()), Encoder()(KEYS))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_vector_is_computed_again_with_a_line(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ask(tmp_path, KEYS, Encoder())
    with lmdb.open(str(tmp_path / "vectors.mdb"), subdir=False) as environment, environment.begin(write=True) as change:
        key, value = next(iter(change.cursor()))
        changed = {"flip": value[:-1] + bytes([value[-1] ^ 1]), "cut": value[:-4], "empty": b""}[damage]
        change.put(key, changed)
    encoder = Encoder()
    assert np.array_equal(ask(tmp_path, KEYS, encoder), first)
    assert encoder.calls == [KEYS]
    assert "1 damaged vectors" in " ".join(capsys.readouterr().err.split())
    assert np.array_equal(ask(tmp_path, KEYS, encoder), first)
    assert len(encoder.calls) == 1


@pytest.mark.parametrize("damage", ["garbage", "cut", "short"])
def test_a_damaged_file_is_begun_anew_with_a_line(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vectors.mdb"
    with VectorCache(tmp_path, shared=False) as cache:
        for number in range(40):  # several pages
            keys = [content_key(str(number), str(row)) for row in range(20)]
            cache.batch("m", keys, lambda keys=keys: np.ones((len(keys), 64), dtype=np.float32))
    whole = path.read_bytes()
    path.write_bytes({"garbage": b"\xff" * len(whole), "cut": whole[: len(whole) // 2], "short": whole[:100]}[damage])
    encoder = Encoder()
    assert np.array_equal(ask(tmp_path, KEYS, encoder), Encoder()(KEYS))
    assert "begun anew" in " ".join(capsys.readouterr().err.split())
    ask(tmp_path, KEYS, encoder)
    assert len(encoder.calls) == 1


def test_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOM", 1 << 16)
    rows = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    keys = [content_key(str(row)) for row in range(64)]
    with VectorCache(tmp_path, shared=False) as cache:
        assert np.array_equal(cache.batch("m", keys, lambda: rows), rows)
    with VectorCache(tmp_path, shared=False) as cache:
        assert np.array_equal(cache.batch("m", keys, lambda: pytest.fail("computed again")), rows)


def test_an_empty_batch(tmp_path: Path) -> None:
    with VectorCache(tmp_path, shared=False) as cache:
        assert cache.batch("m", [], lambda: np.empty((0, 5), dtype=np.float32)).shape == (0, 5)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"encoder\.cache.*cannot be used as a cache of vectors"):
        VectorCache(tmp_path / "file" / "cache", shared=True)

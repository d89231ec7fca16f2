"""Vectors that were computed before, by the hash of what they were computed from, in one LMDB file.

A batch is written in one transaction, so that a killed run goes on from its last whole batch. The last bits of a
vector depend on the rows that are computed with it, its company. Therefore batches are cut from the whole list whether
or not some of it is known, a batch of which anything is missing is computed whole, and what was there before stays.
In a run's own cache the company is part of the key: what such a run ends with is the same to the bit as without a
cache. A cache that several runs share finds a vector in whatever company it was first computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import lmdb
import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.artefacts import hash_json, saying_disk_full
from conrec.errors import ConfigError
from conrec.progress import console

__all__ = ["VectorCache", "content_key"]

FILE = "vectors.mdb"
ROOM = 1 << 30
"""Bytes that the map begins with; it is doubled where they do not suffice."""
_CHECK = 8
"""Bytes of the checksum before each vector."""


def content_key(*parts: str | bytes) -> bytes:
    """The hash of what a vector is computed from, 32 bytes; parts are kept apart."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


class VectorCache:
    """Vectors of any models; open it in a ``with`` block.

    Args:
        folder: where ``vectors.mdb`` is, or will be.
        shared: whether other runs use it too; see the module's docstring.
        machine: what else than company changes bits (device, threads); part of the key where it is not shared.

    Raises:
        ConfigError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, shared: bool, machine: Sequence[str | int] = ()) -> None:
        self.path = folder / FILE
        self.shared = shared
        self.machine = hash_json(list(machine))
        self.damaged = 0
        self._environment = self._open()

    def __enter__(self) -> VectorCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and say how many damaged vectors were computed again."""
        self._environment.close()
        if self.damaged:
            console.print(
                f"        {self.damaged} damaged vectors of {self.path} were computed again",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            self.damaged = 0

    def batch(
        self, model: str, contents: Sequence[bytes], compute: Callable[[], Float32[Array, "batch d"]]
    ) -> Float32[Array, "batch d"]:
        """The vectors of one batch.

        Args:
            model: what tells the model and its settings from others.
            contents: a `content_key` for each row of the batch.
            compute: gives all rows of the batch; called where any is missing.
        """
        company = "" if self.shared else content_key(self.machine, *contents)
        keys = [content_key(model, company, one) for one in contents]
        found = self._read(keys)
        if all(row is not None for row in found):
            return np.stack([row for row in found if row is not None]) if found else compute()
        rows = np.ascontiguousarray(compute(), dtype=np.float32)
        known = [place for place, row in enumerate(found) if row is not None and row.shape == rows.shape[1:]]
        for place in known:
            rows[place] = found[place]
        missing = sorted(set(range(len(keys))) - set(known))
        self._write([(keys[place], _packed(rows[place])) for place in missing])
        return rows

    def _read(self, keys: Sequence[bytes]) -> list[Array | None]:
        found: list[Array | None] = []
        with self._begin(write=False) as transaction:
            for key in keys:
                value = transaction.get(key)
                row = None if value is None else _unpacked(bytes(value))
                self.damaged += value is not None and row is None
                found.append(row)
        return found

    def _write(self, pairs: list[tuple[bytes, bytes]]) -> None:
        while True:
            try:
                with saying_disk_full(self.path), self._begin(write=True) as transaction:
                    for key, value in pairs:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def _begin(self, *, write: bool) -> lmdb.Transaction:
        try:
            return self._environment.begin(write=write)
        except lmdb.MapResizedError:  # another process doubled it
            self._environment.set_mapsize(0)
            return self._environment.begin(write=write)

    def _open(self) -> lmdb.Environment:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._checked()
            except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError, _DamagedError) as error:
                console.print(
                    f"        {self.path} is damaged ({error}); it is begun anew",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
                self.path.unlink()
                return self._checked()
        except (OSError, lmdb.Error) as error:
            raise ConfigError(
                f"cannot be used as a cache of vectors ({error})", where=f"encoder.cache, {self.path}"
            ) from error

    def _checked(self) -> lmdb.Environment:
        """The environment, once the file is known to be as long as it says: reading beyond its end kills a process."""
        # Without a flush of the last page, a crash of the machine may lose the last batch, and nothing else.
        environment = lmdb.open(str(self.path), map_size=ROOM, subdir=False, metasync=False)
        pages = environment.info()["last_pgno"] + 1
        if pages > 2 and self.path.stat().st_size < pages * environment.stat()["psize"]:
            environment.close()
            raise _DamagedError("it was cut off")
        return environment


class _DamagedError(Exception):
    """The file of a cache is not whole."""


def _packed(row: Array) -> bytes:
    data = row.tobytes()
    return hashlib.blake2b(data, digest_size=_CHECK).digest() + data


def _unpacked(value: bytes) -> Array | None:
    """A stored vector; None where it is damaged."""
    data = value[_CHECK:]
    if not data or len(data) % 4 or hashlib.blake2b(data, digest_size=_CHECK).digest() != value[:_CHECK]:
        return None
    return np.frombuffer(data, dtype="<f4").astype(np.float32)

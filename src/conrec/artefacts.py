"""Writing and reading the files of a run: temporary name first, then renamed; hashed by content.

Only Parquet, JSON, TOML and safetensors are read; nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from conrec.arrays import Array
from conrec.errors import ArtefactError

__all__ = [
    "disk_full",
    "hash_file",
    "hash_json",
    "map_tensors",
    "read_json",
    "read_parquet",
    "read_tensor_metadata",
    "read_tensors",
    "replacing",
    "saying_disk_full",
    "sync_folder",
    "write_json",
    "write_parquet",
    "write_parquet_parts",
    "write_tensors",
    "write_text",
]

_ROW_GROUP = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, no more in one file: to the user, all of them are a full disk."""
_FULL_WORDS = tuple(word for code in FULL for word in (os.strerror(code).lower(), f"(os error {code})"))


def disk_full(error: Exception) -> bool:
    """Whether an error means a full disk.

    Libraries in C and Rust (LMDB, safetensors, tokenizers) raise errors of their own with the system's words in
    them. LMDB's MDB_MAP_FULL is not one of these: its map was made too small, however empty the disk.

    >>> disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    True
    >>> disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    True
    >>> disk_full(OSError(errno.EACCES, "Permission denied"))
    False
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    text = str(error).lower()
    return any(word in text for word in _FULL_WORDS)


@contextmanager
def saying_disk_full(path: Path) -> Iterator[None]:
    """Turn a library's own error for a full disk into the OSError (ENOSPC) that Python would have raised."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not disk_full(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` when the block ends well.

    When the block raises (a full disk among the reasons), the temporary file is removed and
    ``path`` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder outlast a machine that stops, in their order, where the system can do that."""
    if os.name == "nt":  # which opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems of networks and of user space refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with a final newline; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtefactError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError("this file is missing", where=str(path)) from None
    except (ValueError, OSError) as error:
        raise ArtefactError(f"cannot be read as JSON ({error})", where=str(path)) from None


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table; the same table gives the same bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_parquet_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table | pa.RecordBatch]) -> None:
    """Write one file from tables or batches of ``schema``, one after another, without holding all of them.

    The same rows give the same bytes, whatever parts they come in.
    """
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        held = schema.empty_table()
        for part in parts:
            rows = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
            held = pa.concat_tables([held, rows.cast(schema)])
            while held.num_rows >= _ROW_GROUP:
                writer.write_table(held.slice(0, _ROW_GROUP).combine_chunks())
                held = held.slice(_ROW_GROUP)
        writer.write_table(held.combine_chunks())


def read_parquet(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """Read a table; with ``schema``, its columns must be there and are cast to its types.

    Raises:
        ArtefactError: the file is missing, damaged, or lacks a column of the schema.
    """
    if not path.is_file():
        raise ArtefactError("this file is missing", where=str(path))
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ArtefactError(f"cannot be read as Parquet ({error})", where=str(path)) from None
    if schema is None:
        return table
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise ArtefactError(f"has no column {missing[0]!r}", where=str(path), expected=", ".join(schema.names))
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise ArtefactError(f"its columns have other types than expected ({error})", where=str(path)) from None


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write NumPy arrays as safetensors.

    Raises:
        OSError: the disk is full, among others.
    """
    with saying_disk_full(path), replacing(path) as temporary:
        # Of an array that is a view, safetensors would write the memory as it lies there.
        in_order = {name: np.asarray(one, order="C") for name, one in tensors.items()}
        temporary.touch()  # with the rights that any new file gets; safetensors gives its own to the owner alone
        rights = stat.S_IMODE(temporary.stat().st_mode)
        save_file(in_order, temporary, metadata=dict(metadata or {}))
        temporary.chmod(rights)


def read_tensors(path: Path) -> dict[str, Array]:
    """Read a safetensors file into NumPy arrays.

    Raises:
        ArtefactError: the file is missing or damaged.
    """
    try:
        tensors: dict[str, Array] = load_file(path)
    except FileNotFoundError:
        raise ArtefactError("this file is missing", where=str(path)) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtefactError(f"cannot be read as safetensors ({error})", where=str(path)) from None
    return tensors


def map_tensors(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file as read-only arrays over the mapped file; nothing is read before it is used.

    Raises:
        ArtefactError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as handle:
            start = 8 + int.from_bytes(handle.read(8), "little")
            header: dict[str, Any] = json.loads(handle.read(start - 8)) if start <= path.stat().st_size else {}
        with safe_open(path, "np"):  # checks that header and size fit each other
            pass
        whole = np.memmap(path, dtype=np.uint8, mode="r", offset=start)
    except FileNotFoundError:
        raise ArtefactError("this file is missing", where=str(path)) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtefactError(f"cannot be read as safetensors ({error})", where=str(path)) from None
    kinds = {"I16": np.int16, "I32": np.int32, "F16": np.float16, "F32": np.float32, "F64": np.float64}
    return {
        name: np.asarray(whole[slice(*one["data_offsets"])]).view(kinds[one["dtype"]]).reshape(one["shape"])
        for name, one in header.items()
        if name != "__metadata__"
    }


def read_tensor_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file; empty where it has none.

    Raises:
        ArtefactError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as opened:
            return dict(opened.metadata() or {})
    except FileNotFoundError:
        raise ArtefactError("this file is missing", where=str(path)) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtefactError(f"cannot be read as safetensors ({error})", where=str(path)) from None


def hash_file(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names, as hexadecimal digits."""
    digest = hashlib.sha256()
    if path.is_dir():
        for inner in sorted(one for one in path.rglob("*") if one.is_file()):
            digest.update(f"{inner.relative_to(path).as_posix()}\0{hash_file(inner)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

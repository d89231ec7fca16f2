"""The keys and values of a store on a Valkey or Redis server: the same records as in the file, one key a user.

::

    conrec:NAME:current           the version that readers read; setting this one key is the switch
    conrec:NAME:versions          which versions there are, finished or not (`conrec.filtering.stores.publishing`)
    conrec:NAME:publishing        held by the one who publishes
    conrec:NAME:VERSION:meta      what the version says about itself, as JSON
    conrec:NAME:VERSION:KEY       record of a user, then the CRC-32 of key and record, uint32 little-endian;
                                  KEY and record as in `conrec.filtering.stores.layout`

VERSION are the first 16 digits of the SHA-256 of the file that was published.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from conrec.errors import ArtefactError, DataError
from conrec.filtering.stores.address import Address
from conrec.filtering.stores.base import VERSION, StoreMeta, StoreUnavailableError
from conrec.filtering.stores.layout import Layout

__all__ = ["PUBLISH", "Names", "ServedVersion", "opened", "sealed", "talking"]

FORMAT = "conrec-predict-sets-valkey"
PUBLISH = "Publish the store again: conrec filter publish."
_CRC = 4
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the keys of a store."""

    store: str

    @property
    def current(self) -> str:
        """Key of the version that readers read."""
        return f"conrec:{self.store}:current"

    @property
    def versions(self) -> str:
        """Key of the hash of versions."""
        return f"conrec:{self.store}:versions"

    @property
    def lock(self) -> str:
        """Key that a publisher holds."""
        return f"conrec:{self.store}:publishing"

    def of(self, version: str) -> bytes:
        """What all keys of a version begin with."""
        return f"conrec:{self.store}:{version[:16]}:".encode()


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """One version of a store on a server.

    Attributes:
        name: SHA-256 of the file that was published.
        meta: what it says about itself.
        layout: of its records.
        prefix: what its keys begin with.
    """

    name: str
    meta: StoreMeta
    layout: Layout
    prefix: bytes

    @staticmethod
    def to_bytes(name: str, meta: StoreMeta) -> bytes:
        """What stands under the key ``meta`` of a version."""
        about = {"format": FORMAT, "version": name, "meta": meta.to_json()}
        return json.dumps(about, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, text: bytes, name: bytes, address: Address) -> ServedVersion:
        """Read what `to_bytes` gave for the version ``name``.

        Raises:
            ArtefactError: it is something else, or of another format version.
        """
        content: Any = None
        try:
            content = json.loads(text)
            meta, right = StoreMeta.from_json(content["meta"]), content["version"].encode() == name
            if meta is not None and right and content["format"] == FORMAT and meta.version == VERSION:
                layout = Layout.of(meta.slots, meta.sizes)
                return cls(name.decode(), meta, layout, Names(address.name).of(name.decode()))
        except (ValueError, TypeError, KeyError, AttributeError, DataError):
            pass
        found = content.get("meta") if isinstance(content, dict) else None
        other = found.get("version") if isinstance(found, dict) else None
        raise ArtefactError(
            "its meta data is damaged" if other in (None, VERSION) else f"has the format version {other}",
            where=f"{address}, version {name[:16].decode(errors='replace')}",
            expected=f"format {FORMAT!r}, version {VERSION}",
            mend=PUBLISH,
        )


def sealed(key: bytes, value: bytes) -> bytes:
    """A value with the checksum that says that it belongs to a key and is whole."""
    return value + zlib.crc32(value, zlib.crc32(key)).to_bytes(_CRC, "little")


def opened(key: bytes, value: bytes, version: ServedVersion, address: Address) -> bytes:
    """What `sealed` was given.

    Raises:
        StoreUnavailableError: the value is not whole, or not of this key.
    """
    record = value[:-_CRC]
    if sealed(key, record) != value or not version.layout.fits(record):
        raise StoreUnavailableError(
            f"the record {(version.prefix + key)[:80].decode(errors='replace')!r} is damaged",
            where=str(address),
            mend=PUBLISH,
        )
    return record


def talking(address: Address, ask: Callable[[], T]) -> T:
    """Ask a server something.

    Raises:
        StoreUnavailableError: it does not answer, or refuses.
    """
    from valkey.exceptions import ValkeyError  # noqa: PLC0415

    try:
        return ask()
    except (ValkeyError, OSError) as error:
        raise StoreUnavailableError(
            f"the server does not answer as it should ({type(error).__name__}: {error})",
            where=str(address),
            mend="See whether it runs and may be reached from here.",
        ) from error

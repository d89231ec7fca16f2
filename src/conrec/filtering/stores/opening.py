"""Opens a predict-set store by where it is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from conrec.artefacts import hash_file
from conrec.filtering.stores.address import is_address
from conrec.filtering.stores.base import PredictSetReader
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.valkey import ValkeyStore
from conrec.items.space import REBUILT

__all__ = ["codebooks_of", "open_store"]


def codebooks_of(run_folder: Path) -> str:
    """Hash of what a run's codebooks rebuild of its own items; empty where there is nothing.

    Items that are appended are rebuilt from the same codebooks, or refused (`conrec.items.growing.growth`).
    """
    path = run_folder / "items" / REBUILT
    return hash_file(path) if path.is_file() else ""


def open_store(
    place: Path | str,
    expected_sid_hash: str | None = None,
    earlier: Collection[str] = (),
    *,
    codebook_hash: str = "",
    verified: str = "",
) -> PredictSetReader:
    """Open a store for reading, once it is what it should be.

    Args:
        place: its folder, or ``valkey://host:port/NAME`` (`conrec.filtering.stores.address.Address.parse`).
        expected_sid_hash: hash of the SID table that the codes will be read with; None: not checked.
        earlier: hashes of tables that it grew from, in which the codes name the same items.
        codebook_hash: of `codebooks_of`; empty: not checked.
        verified: ``version`` of a store that this process, or the one that started it, has opened: where it is still
            the one, its checksum is not computed again.

    Raises:
        ArtefactError: there is no store, it is damaged, or of another SID table or other codebooks.
        ConfigError: an address that is none.
        MissingExtraError: for an address, the package ``valkey`` is not installed.
        StoreUnavailableError: its server does not answer.
    """
    if isinstance(place, str) and is_address(place):
        return ValkeyStore.open(place, expected_sid_hash, earlier, codebook_hash=codebook_hash)
    return PredictSetStore.open(Path(place), expected_sid_hash, earlier, codebook_hash=codebook_hash, verified=verified)

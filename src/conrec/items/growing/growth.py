"""A catalogue that grew after its run was trained: where it lies, and whether it still fits the run. No torch needed.

The trained run stays as it is; what was appended lies beside it, as the whole catalogue::

    RUN/catalogue/growth.json           names the folder below, says what it grew from and how; what makes the catalogue
    RUN/catalogue/0002-HASH/            items.parquet, semantic_ids.parquet, rebuilt.safetensors, trie.safetensors,
                                        appended.parquet: old rows first, as they were, then the new ones

A new state is written completely beside the old one, and replacing ``growth.json`` is the single step that switches to
it (a folder cannot be renamed onto one that is not empty). Whoever reads, or is killed, sees one or the other. The
state before stays until the next append, so that whoever reads it can finish.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrec.artefacts import hash_file, read_json, write_json
from conrec.errors import ArtefactError, ConrecError
from conrec.folders import replacing_folder
from conrec.items.space import QUANTISER, SEMANTIC_IDS_FILE

__all__ = [
    "APPENDED_FILE",
    "ITEMS_FILE",
    "Catalogue",
    "current_catalogue",
    "own_catalogue",
    "what_does_not_fit",
    "what_it_grows_from",
    "writing_catalogue",
]

CATALOGUE = "catalogue"
GROWTH = "growth.json"
FORMAT = "conrec-catalogue"
VERSION = 2
ITEMS_FILE = "items.parquet"
APPENDED_FILE = "appended.parquet"
TABLES = (ITEMS_FILE, SEMANTIC_IDS_FILE, APPENDED_FILE)
"""Files of a catalogue that are checked to the byte whenever it is read; the embeddings and the trie of a large one are
too large for that, and say themselves how many items and which codes they are of."""
GROWN_FROM = (SEMANTIC_IDS_FILE, QUANTISER, "fusion.safetensors")
"""Files of ``RUN/items`` that a new item's codes follow from."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Where the items of a run lie.

    Attributes:
        folder: with the semantic IDs, rebuilt embeddings and trie (`conrec.items.space`).
        items: the file of schema `conrec.logs.schema.ITEMS`, rows in the same order.
        sid_tables: hashes of the SID tables from the run's own to this one; empty where nothing was appended.
        growth: what ``growth.json`` says; empty where nothing was appended.
    """

    folder: Path
    items: Path
    sid_tables: tuple[str, ...]
    growth: dict[str, Any]

    @property
    def earlier(self) -> tuple[str, ...]:
        """Hashes of the SID tables that this one grew from: their codes name the same items in it."""
        return self.sid_tables[:-1]

    @property
    def appended(self) -> int:
        """Items that the run itself does not know."""
        return int(self.growth.get("appended", 0))


def own_catalogue(run_folder: Path) -> Catalogue:
    """The items that a run was made with."""
    return Catalogue(run_folder / "items", run_folder / "data" / ITEMS_FILE, (), {})


def current_catalogue(run_folder: Path) -> Catalogue:
    """All items of a run as they are now: its own, and those that were appended.

    Raises:
        ArtefactError: it grew from other codebooks or semantic IDs than the run has now, or is damaged: a table is not
            the one that was written, so that its rows might belong to other items than those of the other files.
    """
    root = run_folder / CATALOGUE
    path = root / GROWTH
    if not path.is_file():
        return own_catalogue(run_folder)
    growth = read_json(path)
    try:
        folder, tables = root / str(growth["folder"]), tuple(growth["sid_tables"])
        grown_from, appended = growth["grown_from"], int(growth["appended"])
        files = {name: str(growth["files"][name]) for name in TABLES}
        fits = growth["format"] == FORMAT and growth["version"] == VERSION
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits or not isinstance(grown_from, dict) or not appended or len(tables) < 2 or folder.parent != root:
        raise ArtefactError(
            "does not describe a catalogue that grew",
            where=str(path),
            expected=f"format {FORMAT!r}, version {VERSION}",
            mend=_mend(root, "*"),
        )
    if grown_from != what_it_grows_from(run_folder):
        raise ArtefactError(
            f"these {appended:,} appended items have their semantic IDs from other codebooks than those of this run",
            where=str(root),
            expected="the codebooks and semantic IDs of RUN/items",
            mend=f"The run was trained again since. {_mend(root, folder.name)}",
        )
    for name, digest in files.items():
        _check_file(folder / name, digest, _mend(root, folder.name))
    return Catalogue(folder, folder / ITEMS_FILE, tables, growth)


def what_does_not_fit(run_folder: Path) -> str | None:
    """A line that says why what was appended to a run cannot be read, and how to mend it; None where all is well."""
    try:
        current_catalogue(run_folder)
    except ConrecError as error:
        return str(error)
    return None


def _check_file(path: Path, digest: str, mend: str) -> None:
    if not path.is_file():
        raise ArtefactError("this file is missing", where=str(path), mend=mend)
    if (found := hash_file(path)) != digest:
        raise ArtefactError(
            f"is not the file that was written: its hash is {found[:12]}…",
            where=str(path),
            expected=f"that of growth.json, {digest[:12]}…",
            mend=f"Put the file back as it was. {mend}",
        )


def what_it_grows_from(run_folder: Path) -> dict[str, str]:
    """Hash of each file of ``RUN/items`` that the codes of new items follow from; "absent" where it is not there."""
    paths = {name: run_folder / "items" / name for name in GROWN_FROM}
    return {name: hash_file(path) if path.is_file() else "absent" for name, path in paths.items()}


@contextmanager
def writing_catalogue(run_folder: Path, number: int, growth: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder that becomes the run's catalogue when the block ends well.

    Args:
        run_folder: the run, locked by this process.
        number: of the append, from 1.
        growth: what ``growth.json`` is to say besides format, folder and the hashes of the files.
    """
    root = run_folder / CATALOGUE
    name = f"{number:04d}-{growth['sid_tables'][-1][:8]}"
    with replacing_folder(root / name) as temporary:
        yield temporary
    files = {one.name: hash_file(one) for one in sorted((root / name).iterdir())}
    before = read_json(root / GROWTH).get("folder") if (root / GROWTH).is_file() else None
    write_json(root / GROWTH, {"format": FORMAT, "version": VERSION, "folder": name, "files": files, **growth})
    for other in root.iterdir():
        if other.is_dir() and other.name not in (name, before):
            shutil.rmtree(other, ignore_errors=True)


def _mend(root: Path, folder: str) -> str:
    return (
        f"Remove {root} to go on with the items of the run; to have the others again, move it away first and append "
        f"them anew: `conrec items append {root.parent} MOVED/{folder}/{ITEMS_FILE}`."
    )

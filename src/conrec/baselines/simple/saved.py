"""The two files of a model that only counts: its tables as tensors, and the settings it was fitted with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from conrec.arrays import Array
from conrec.artefacts import read_json, read_tensors, write_json, write_tensors
from conrec.errors import ArtefactError
from conrec.settings.base import Settings

__all__ = ["TABLES", "damaged", "read_settings", "read_tables", "table_of", "write_model"]

TABLES = "model.safetensors"
SETTINGS = "config.json"

S = TypeVar("S", bound=Settings)


def write_model(folder: Path, tables: Mapping[str, Array], settings: Settings) -> None:
    """Write ``model.safetensors`` and ``config.json`` into ``folder``."""
    write_tensors(folder / TABLES, tables)
    write_json(folder / SETTINGS, settings.model_dump(mode="json"))


def read_settings(folder: Path, kind: type[S]) -> S:
    """The settings that `write_model` wrote.

    Raises:
        ArtefactError: the file is missing, damaged, or of another model.
    """
    path = folder / SETTINGS
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise ArtefactError(
            f"is not a saved {kind.__name__} ({where}: {wrong['msg']})",
            where=str(path),
            mend="Train the row again.",
        ) from None


def read_tables(folder: Path) -> dict[str, Array]:
    """The tables that `write_model` wrote.

    Raises:
        ArtefactError: the file is missing or damaged.
    """
    return read_tensors(folder / TABLES)


def table_of(tables: Mapping[str, Array], name: str, folder: Path, *shape: int | None) -> Array:
    """A dense table of finite numbers.

    Args:
        tables: of the file.
        name: of the one asked for.
        folder: that the file lies in, for the error.
        shape: what it must be; None: any.

    Raises:
        ArtefactError: it is missing, of another shape, or holds something else than finite numbers.
    """
    found = tables.get(name)
    if (
        found is None
        or found.ndim != len(shape)
        or any(size is not None and size != there for size, there in zip(shape, found.shape, strict=True))
        or not np.isfinite(found).all()
    ):
        sizes = ", ".join("n" if size is None else str(size) for size in shape)
        raise damaged(folder, name, f"finite numbers [{sizes}]")
    return found


def damaged(folder: Path, name: str, expected: str) -> ArtefactError:
    """The error for a table that does not fit."""
    return ArtefactError(
        f"does not hold the table {name!r}",
        where=str(folder / TABLES),
        expected=expected,
        mend="Train the row again.",
    )

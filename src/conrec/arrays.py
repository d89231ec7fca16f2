"""The array types that signatures are written with, and a ragged array of item indices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
else:
    Array = np.ndarray

__all__ = ["Array", "Ragged"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different length, stored as one flat array.

    Attributes:
        offsets: int64 [rows + 1]; row ``r`` is ``values[offsets[r]:offsets[r + 1]]``.
        values: int32 [offsets[-1]].
    """

    offsets: Array
    values: Array

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | Array]) -> Ragged:
        """Pack ``rows``, keeping their order and the order within each."""
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        values = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
        return cls(offsets, values)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a ragged array with {len(self)} rows")
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Array]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> Array:
        """Length of each row, int64 [rows]."""
        return np.diff(self.offsets)

    def take(self, rows: Array) -> Ragged:
        """The rows of the given indices (int, any order, repeats allowed), as a new ragged array."""
        lengths = self.lengths[rows]
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Ragged(offsets, self.values[source])

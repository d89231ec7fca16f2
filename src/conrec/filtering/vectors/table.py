"""The items as the filter multiplies them: unit rows in 16 bits, and a short screen of each that fits a cache line.

A row is kept as whole numbers, ``round(32000 * row)``: two bytes a feature like float16, with a smaller error for rows
of length 1, whose features need no exponent. The dot product of two such rows is a whole number below 2^31, and whole
numbers add up to the same in every order: a similarity, that product over the lengths of both rows, is the same to the
last bit on every machine, in every block and in both of the ways below; that of a row to itself is 1.

- `ItemTable.similarities`: all of them, by a product of float64 matrices, which is exact here (every partial sum is a
  whole number below 2^53).
- `ItemTable.dropped`: only whether some similarity is above a threshold. By the inequality of Cauchy and Schwarz

      <x, y>  <=  <Vx, Vy> + |x - V'Vx| |y - V'Vy|

  for any V with orthonormal rows; with V the main axes of the rows the right side is close, and the length of the rest
  is one more feature. So one product of 32 features shows for most candidates that nothing is near enough; of the
  others 64 and then 126 decide most, and the full rows are read only where these leave it open (see
  `conrec.filtering.vectors.screen`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32

from conrec.arrays import Array
from conrec.artefacts import map_tensors, read_tensor_metadata, write_tensors
from conrec.errors import ArtefactError
from conrec.filtering.vectors import compiled, screen
from conrec.filtering.vectors.compiled import SCALE
from conrec.filtering.vectors.nearest import nearest_of_pairs

__all__ = ["ItemTable", "max_similarity"]

FIRST, SECOND, THIRD = 32, 64, 64
"""Features of each look, the last of them a length: 31 main axes; 63; the 63 after those."""
AXES = SECOND - 1 + THIRD - 1
"""Main axes that are looked at, 126."""
_TENSORS = ("rows", "lengths", "first", "second", "third")
_AT_ONCE = 1 << 16
_SAMPLE = 1 << 16


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Rows of items.

    Attributes:
        rows: int16 [items, d], unit rows times `SCALE`, rounded.
        lengths: float64 [items], of these rows; a row of zeros has 1.
        first: int16 [items, 32], the first look: coordinates on the main axes, and the length of the rest.
        second: int16 [items, 64]: the same with twice as many axes.
        third: int16 [items, 64]: coordinates on the axes after those of the second, and the length of what is left.
        slack: how far a product of two rows of a look, over ``SCALE ** 2``, may lie from what it bounds.
    """

    rows: Array
    lengths: Array
    first: Array
    second: Array
    third: Array
    slack: float

    @classmethod
    def build(cls, rebuilt: Float32[Array, "items d"]) -> ItemTable:
        """Round the rows and lay out their looks.

        Args:
            rebuilt: rows of length 1.
        """
        items, d = rebuilt.shape
        rows, lengths = np.empty((items, d), dtype=np.int16), np.empty(items)
        looks = [np.zeros((items, width), dtype=np.int16) for width in (FIRST, SECOND, THIRD)]
        axes = _main_axes(rebuilt)
        for begin in range(0, items, _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            rows[part] = np.rint(rebuilt[part].astype(np.float64) * SCALE)
            # The looks are of the rounded rows, made of length SCALE: it is their products that decide.
            whole = rows[part].astype(np.float64)
            lengths[part] = np.sqrt(np.square(whole).sum(axis=1))
            lengths[part][lengths[part] == 0] = 1
            whole *= SCALE / lengths[part][:, None]
            turned = whole @ axes
            for look, start in zip(looks, (0, 0, SECOND - 1), strict=True):
                end = min(start + look.shape[1] - 1, turned.shape[1])
                if end > start:
                    look[part, : end - start] = np.rint(turned[:, start:end])
                rest = np.square(whole).sum(axis=1) - np.square(turned[:, : max(end, start)]).sum(axis=1)
                look[part, -1] = np.ceil(np.sqrt(np.maximum(rest, 0)))
        return cls(rows, lengths, looks[0], looks[1], looks[2], _slack(SECOND + THIRD))

    def __len__(self) -> int:
        return len(self.rows)

    def save(self, path: Path, made_of: Mapping[str, str]) -> None:
        """Write ``items.safetensors`` for `map`.

        Args:
            path: the file.
            made_of: hashes of what these items are and of what their rows were made of.
        """
        tensors = {name: getattr(self, name) for name in _TENSORS}
        # One entry, for safetensors writes several in no order, and a run repeats to the byte.
        said = json.dumps({**made_of, "sha256": _checksum(tensors)}, sort_keys=True)
        write_tensors(path, tensors, {"made_of": said})

    @classmethod
    def map(cls, path: Path, made_of: Mapping[str, str]) -> ItemTable | None:
        """The table of a file, mapped: processes that open it share one copy in memory.

        Args:
            path: what `save` wrote.
            made_of: the hashes that it must have.

        Returns:
            None where there is no such file, or it was made of something else.

        Raises:
            ArtefactError: it is damaged; its checksum is computed, which takes about a second for a million items.
        """
        if not path.is_file():
            return None
        said = json.loads(read_tensor_metadata(path).get("made_of", "{}"))
        if any(said.get(name) != value for name, value in made_of.items()):
            return None
        tensors = map_tensors(path)
        mend = "Remove it: the next `conrec run` or `conrec filter store` writes it anew."
        names = _TENSORS
        shapes = [tensors[name].shape for name in names if name in tensors]
        items = shapes[0][0] if shapes else 0
        if (
            tensors.keys() != set(names)
            or shapes[1:] != [(items,), (items, FIRST), (items, SECOND), (items, THIRD)]
            or [tensors[name].dtype for name in names] != [np.int16, np.float64, np.int16, np.int16, np.int16]
        ):
            raise ArtefactError(
                f"holds { ({name: one.shape for name, one in tensors.items()}) }",
                where=str(path),
                expected=f"rows, lengths and looks of {FIRST}, {SECOND} and {THIRD} features",
                mend=mend,
            )
        if _checksum(tensors) != said.get("sha256"):
            raise ArtefactError("its checksum is not the one that it states", where=str(path), mend=mend)
        rows, lengths, first, second, third = (tensors[name] for name in names)
        return cls(rows, lengths, first, second, third, _slack(SECOND + THIRD))

    def rebuilt(self, items: Int[Array, " items"]) -> Float32[Array, "items d"]:
        """Rows of some items, of length 1."""
        return (self.rows[items] / self.lengths[items, None]).astype(np.float32)

    def similarities(self, items: Int[Array, " n"], members: Int[Array, " K"]) -> Float64[Array, "n K"]:
        """Cosines of some items to some others, of the rounded rows.

        Args:
            items, members: catalogue indices, none negative.
        """
        out = np.empty((len(items), len(members)))
        other = self.rows[members].astype(np.float64).T
        for begin in range(0, len(items), 4096):
            part = slice(begin, begin + 4096)
            out[part] = self.rows[items[part]].astype(np.float64) @ other
        out /= self.lengths[items][:, None] * self.lengths[members]
        return out

    def dropped(
        self,
        items: Int[Array, " n"],
        members: Int[Array, " K"],
        weights: Float64[Array, " K"],
        thresholds: Float32[Array, " n"],
    ) -> Bool[Array, " n"]:
        """Whether ``max_i weights[i] * cos(item, members[i])`` is above the item's threshold; as `similarities` says.

        Args:
            items: catalogue indices; one that no item has is not dropped.
            members: catalogue indices of the predict set, none negative.
            weights: not negative.
            thresholds: infinity: not dropped.
        """
        if not len(members) or not len(items):
            return np.zeros(len(items), dtype=np.bool_)
        if items.dtype != np.int32 or not compiled.COMPILED:
            items = self.known(items)
        if compiled.COMPILED:
            return screen.dropped(
                self,
                items,
                members.astype(np.int32, copy=False),
                np.ascontiguousarray(weights, dtype=np.float64),
                np.ascontiguousarray(thresholds, dtype=np.float32),
            )
        out = np.zeros(len(items), dtype=np.bool_)
        known = np.flatnonzero(items >= 0)
        weighted = self.similarities(items[known], members) * weights
        out[known] = weighted.max(axis=1).astype(np.float32) > thresholds[known]
        return out

    def known(self, items: Int[Array, "*shape"]) -> Int32[Array, "*shape"]:
        """Catalogue indices with -1 for those that no item has, as where a platform keeps another catalogue's."""
        if items.size and (int(items.max()) >= len(self) or int(items.min()) < -1):
            items = np.where((items >= 0) & (items < len(self)), items, -1)
        return items.astype(np.int32, copy=False)

    def warm(self) -> None:
        """Compile both questions before the first request, which takes seconds where nothing was kept."""
        if compiled.COMPILED and len(self):
            one = np.zeros(1, dtype=np.int32)
            screen.dropped(self, one, one, np.ones(1), np.zeros(1, dtype=np.float32))
            nearest_of_pairs(self, one[:, None], one, one, None)


def max_similarity(
    table: ItemTable,
    predicted: Int[Array, "sets K"],
    sets: Int[Array, " pairs"],
    items: Int[Array, " pairs"],
    weights: Float64[Array, "sets K"] | None = None,
) -> tuple[Float32[Array, " pairs"], Int[Array, " pairs"]]:
    """``max_{i in predict set} w_i sim(candidate, i)`` of each pair (predict set, candidate), and the i that gives it.

    The paper's Deployment section, with w = 1.

    Args:
        table: rows of all items.
        predicted: items of each predict set, best first, -1 for none.
        sets: row of ``predicted`` for each pair; -1 for none.
        items: candidate of each pair; -1 for none.
        weights: of each predicted item; None: 1.

    Returns:
        The similarity (NaN where the pair has no candidate, no set or an empty one) and the item of the predict set
        that is nearest (int32), -1 where there is none; ties go to the better rank.
    """
    predicted, items = table.known(predicted), table.known(items)
    if sets.size and not -1 <= int(sets.min()) <= int(sets.max()) < len(predicted):
        raise IndexError(f"a pair is of the set {int(sets.max())}, and there are {len(predicted)}")
    if compiled.COMPILED and predicted.size:
        return nearest_of_pairs(table, predicted, sets, items, weights)
    similarity = np.full(len(items), np.nan, dtype=np.float32)
    nearest = np.full(len(items), -1, dtype=np.int32)
    known = np.flatnonzero((sets >= 0) & (items >= 0))
    known = known[np.argsort(sets[known], kind="stable")]
    groups, starts = np.unique(sets[known], return_index=True)
    for group, begin, end in zip(groups, starts, np.append(starts, len(known))[1:], strict=True):
        pairs = known[begin:end]
        here = predicted[group] >= 0
        members = predicted[group][here]
        if not len(members):
            continue
        of_pair = table.similarities(items[pairs], members)
        if weights is not None:
            of_pair *= weights[group][here]
        best = of_pair.argmax(axis=1)
        similarity[pairs] = of_pair[np.arange(len(pairs)), best]
        nearest[pairs] = members[best]
    return similarity, nearest


def _checksum(tensors: Mapping[str, Array]) -> str:
    """SHA-256 of the numbers."""
    digest = hashlib.sha256()
    for name in _TENSORS:
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _main_axes(rebuilt: Array) -> Array:
    """The axes of most of the rows' length, float64 [d, at most 126], by a sample; any axes would be right."""
    sample = rebuilt[:: max(1, len(rebuilt) // _SAMPLE)].astype(np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(axes[:, ::-1][:, :AXES])


def _slack(features: int) -> float:
    """Room for what rounding took from the bound, over ``SCALE ** 2``.

    Each feature of a look is off by half at most, so a row by sqrt(features) / 2, and a product with a row of length
    SCALE (and its own rounding) by a little more than twice that; sums in float32 add a few 1e-6.
    """
    off = math.sqrt(features) / 2 / SCALE
    return 2 * off * 1.01 + off**2 + 2e-5

"""``conrec filter apply``: a file of (user, candidate) pairs in, the same rows with the filter's decision out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.artefacts import replacing
from conrec.errors import DataError
from conrec.filtering.calibrating.threshold import in_words, read_threshold
from conrec.filtering.filter import REASONS, UNKNOWN_ITEM, UNKNOWN_USER, Decisions, NegativeFilter
from conrec.filtering.tables import Block, open_table, suffix_of, table_writer
from conrec.progress import meter

__all__ = ["ADDED", "ApplySummary", "apply_filter"]

ADDED = ("similarity", "dropped", "nearest_sid", "nearest_item", "reason")
"""Columns that the output has after those of the input."""
REQUIRED = ("user_id", "item_id")
BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class ApplySummary:
    """What `apply_filter` did.

    Attributes:
        model: name of the row.
        threshold: what was applied; None keeps everything.
        rows: rows read and written.
        dropped: rows that the filter drops.
        unknown_users: rows kept because their user has no predict set.
        unknown_items: rows kept because their item is not in the catalogue (and their user is known).
        out_file: where the output lies.
        why_nothing: where the threshold cannot drop anything, why, and what other bounds would do; else empty.
    """

    model: str
    threshold: float | None
    rows: int
    dropped: int
    unknown_users: int
    unknown_items: int
    out_file: Path
    why_nothing: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        threshold = "none" if self.threshold is None else f"{self.threshold:.4f}"
        return [
            f"{self.rows:,} rows: {self.dropped:,} dropped, {self.kept:,} kept ({self.unknown_users:,} of unknown "
            f"users, {self.unknown_items:,} of unknown items); model {self.model}, threshold {threshold}",
            *self.why_nothing,
        ]

    @property
    def kept(self) -> int:
        """Rows that the filter keeps."""
        return self.rows - self.dropped


def apply_filter(
    run_folder: Path, model: str, candidates_file: Path, out_file: Path, *, block: int = BLOCK
) -> ApplySummary:
    """Judge every row of a file; memory stays bounded by ``block`` rows, however long the file is.

    IDs may be text or whole numbers, which are matched by their decimal text. A row whose user or item is null
    or empty is kept as unknown.

    Args:
        run_folder: the run.
        model: a row with a predict-set store in it.
        candidates_file: .parquet, .csv, .tsv or .jsonl with user_id and item_id; other columns are carried through.
        out_file: .parquet, .csv, .tsv or .jsonl; written under a temporary name and renamed at the end.
        block: rows that are read at a time.

    Raises:
        DataError: the input or output file cannot be used, with file, row and column.
        ArtefactError: no such run or model, or a damaged artefact.
    """
    suffix = suffix_of(out_file)
    table = open_table(candidates_file, REQUIRED)
    if out_file.exists() and out_file.samefile(candidates_file):
        raise DataError("the output is the input file", where=str(out_file), expected="another name")
    negative_filter = NegativeFilter.load(run_folder, model)
    # JSON lines state no columns: they are read once more for outputs that need them beforehand.
    schema = table.schema if suffix in (".jsonl", ".ndjson") else table.full_schema(block)
    _refuse_clash(schema.names if schema is not None else [], candidates_file)
    rows = dropped = unknown_users = unknown_items = 0
    with replacing(out_file) as temporary, meter("filter", 0) as step:
        with table_writer(temporary, suffix, schema) as write:
            for one in table.blocks(block):
                if one.columns is None:
                    _refuse_clash({key for row in one.rows for key in row}, candidates_file)
                users, items = (_ids(one, name, candidates_file) for name in REQUIRED)
                decisions = negative_filter.decide(users, items)
                write(one, _columns(decisions, negative_filter))
                rows += len(one)
                dropped += int(decisions.dropped.sum())
                unknown_users += int((decisions.reason == UNKNOWN_USER).sum())
                unknown_items += int((decisions.reason == UNKNOWN_ITEM).sum())
                step(len(one), f"{dropped:,} dropped")
        if rows == 0:
            raise DataError("has no rows", where=str(candidates_file), expected="at least one candidate")
    why = tuple(in_words(read_threshold(run_folder, model)))
    return ApplySummary(model, negative_filter.threshold, rows, dropped, unknown_users, unknown_items, out_file, why)


def _refuse_clash(names: list[str] | set[str], path: Path) -> None:
    for name in ADDED:
        if name in names:
            raise DataError(
                f"already has a column {name!r}",
                where=str(path),
                expected="none of " + ", ".join(ADDED),
                mend="Rename it: the filter writes its decision there.",
            )


def _ids(block: Block, name: str, path: Path) -> list[str | None]:
    """One ID column of a block as text; null where it is null or empty."""
    if block.columns is None:
        return [_id(row, name, path, block.first_row + position) for position, row in enumerate(block.rows)]
    column = block.columns[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (text or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"has the type {kind}", where=f"{path}, column {name}", expected="text or whole numbers")
    values: list[str | None] = pc.cast(column, pa.string()).to_pylist()
    return [value or None for value in values]


def _id(row: dict[str, object], name: str, path: Path, number: int) -> str | None:
    if name not in row:
        raise DataError(
            f"has no {name!r}", where=f"{path}, row {number}", mend=f"It has: {', '.join(sorted(row)) or 'nothing'}."
        )
    value = row[name]
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{value!r}", where=f"{path}, row {number}, {name}", expected="text or a whole number")
    return str(value)


def _columns(decisions: Decisions, negative_filter: NegativeFilter) -> dict[str, pa.Array]:
    """The added columns; each text is made once per distinct item and shared."""
    catalogue = negative_filter.catalogue
    distinct, place = np.unique(decisions.nearest, return_inverse=True)
    sids = pa.array([catalogue.sid_text(int(item)) for item in distinct], pa.string())
    names = pa.array([None if item < 0 else catalogue.item_ids[item] for item in distinct], pa.string())
    similarity = decisions.similarity
    return {
        "similarity": pa.array(similarity, pa.float32(), mask=np.isnan(similarity)),
        "dropped": pa.array(decisions.dropped, pa.bool_()),
        "nearest_sid": sids.take(pa.array(place)),
        "nearest_item": names.take(pa.array(place)),
        "reason": pa.array(REASONS, pa.string()).take(pa.array(decisions.reason)),
    }

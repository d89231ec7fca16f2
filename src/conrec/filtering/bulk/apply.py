"""``conrec filter apply``: a table of (user, candidate) pairs in, the same rows with the filter's decision out.

Rows are read, judged and written block by block, in the order that they have, so memory stays bounded however long the
table is. Where the filter's policy asks something of a whole request, see `conrec.filtering.bulk.grouping`.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from conrec.arrays import Array
from conrec.artefacts import replacing
from conrec.errors import DataError
from conrec.filtering.bulk.grouping import in_file_order
from conrec.filtering.bulk.pairs import ADDED, JUDGED, FilterJob, PairJudge, refuse_added
from conrec.filtering.bulk.table_writers import table_writer
from conrec.filtering.bulk.tables import Block, OpenTable, open_table, suffix_of
from conrec.filtering.calibrating.threshold import in_words, read_threshold
from conrec.filtering.decisions import DROPPED, KEPT, REASONS, UNKNOWN_ITEM, UNKNOWN_USER, Decisions
from conrec.filtering.policy import Policy
from conrec.progress import meter
from conrec.settings.engine import EngineConfig

__all__ = ["ADDED", "ApplySummary", "apply_filter", "summary_of"]


@dataclass(frozen=True, slots=True)
class ApplySummary:
    """What was done with a table of pairs.

    Attributes:
        model: name of the row.
        threshold: what was applied; None keeps everything.
        reasons: rows by reason, in the order of `REASONS`.
        out_file: where the output lies.
        why_nothing: where the threshold cannot drop anything, why, and what other bounds would do; else empty.
        unused: the column that was to say what a request is, where nothing asked for it; else None.
    """

    model: str
    threshold: float | None
    reasons: tuple[int, ...]
    out_file: Path
    why_nothing: tuple[str, ...] = ()
    unused: str | None = None

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        threshold = "none" if self.threshold is None else f"{self.threshold:.4f}"
        said = (KEPT, DROPPED, UNKNOWN_USER, UNKNOWN_ITEM)
        others = [
            f"{count:,} {reason}"
            for code, (reason, count) in enumerate(zip(REASONS, self.reasons, strict=True))
            if count and code not in said
        ]
        return [
            f"{self.rows:,} rows: {self.dropped:,} dropped, {self.kept:,} kept ({self.unknown_users:,} of unknown "
            f"users, {self.unknown_items:,} of unknown items); model {self.model}, threshold {threshold}",
            *(["  " + ", ".join(others)] if others else []),
            *(
                [f"  the column {self.unused!r} changed nothing: only filter.keep_at_least asks what a request is"]
                if self.unused is not None
                else []
            ),
            *self.why_nothing,
        ]

    @property
    def rows(self) -> int:
        """Rows read and written."""
        return sum(self.reasons)

    @property
    def dropped(self) -> int:
        """Rows that the filter drops."""
        return self.reasons[DROPPED]

    @property
    def kept(self) -> int:
        """Rows that the filter keeps."""
        return self.rows - self.dropped

    @property
    def unknown_users(self) -> int:
        """Rows kept because their user has no predict set."""
        return self.reasons[UNKNOWN_USER]

    @property
    def unknown_items(self) -> int:
        """Rows kept because their item is not in the catalogue (and their user is known)."""
        return self.reasons[UNKNOWN_ITEM]


def apply_filter(
    run_folder: Path,
    model: str,
    candidates: Path,
    out_file: Path,
    *,
    block: int | None = None,
    store: str | None = None,
    policy: Policy | None = None,
    request_column: str | None = None,
    now: float | None = None,
    sort: bool = False,
    engine: EngineConfig | None = None,
) -> ApplySummary:
    """Judge every row of a table.

    IDs may be text or whole numbers, which are matched by their decimal text. A row whose user or item is null
    or empty is kept as unknown.

    Args:
        run_folder: the run.
        model: a row with a predict-set store in it.
        candidates: .parquet, .csv, .tsv or .jsonl, or a folder of Parquet files, with user_id and item_id; other
            columns are carried through.
        out_file: .parquet, .csv, .tsv or .jsonl; written under a temporary name and renamed at the end.
        block: rows that are read at a time; None: as many as are fast.
        store, policy, request_column, now: see `FilterJob`.
        sort: bring the rows of each user together before they are judged: faster where they lie far apart. The output
            has the order of the input all the same.
        engine: memory and temporary folder for that, and for bringing requests together where the policy asks for it.

    Raises:
        DataError: the input or output cannot be used, with file, row and column.
        ArtefactError: no such run or model, or a damaged artefact.
        StoreUnavailableError: the store's server does not answer.
        OSError: the disk is full, among others; an output that was there is then as it was.
    """
    suffix = suffix_of(out_file)
    job = FilterJob(run_folder, model, store, policy, request_column, time.time() if now is None else now)
    table = open_table(candidates, job.required)
    if any(out_file.exists() and out_file.samefile(one) for one in (candidates, *table.parts)):
        raise DataError("the output is the input file", where=str(out_file), expected="another name")
    judge = job.open()
    # JSON lines state no columns: they are read once more for outputs that need them beforehand.
    schema = table.schema if suffix in (".jsonl", ".ndjson") else table.full_schema(block)
    refuse_added(schema.names if schema is not None else [], str(candidates))
    counts = np.zeros(len(REASONS), dtype=np.int64)
    for left in out_file.parent.glob(f".{glob.escape(out_file.name)}.*.tmp"):
        left.unlink(missing_ok=True)  # of a process that was killed
    with replacing(out_file) as temporary, meter("filter", table.rows) as step:
        with (
            _decider(table, judge, job, block, engine or EngineConfig(), sort) as decide,
            table_writer(temporary, suffix, schema, JUDGED) as write,
        ):
            for one in table.blocks(block):
                if one.columns is None:
                    refuse_added({key for row in one.rows for key in row}, str(candidates))
                decisions = decide(one)
                write(one, judge.columns(decisions))
                counts += np.bincount(decisions.reason, minlength=len(REASONS))
                step(len(one), f"{counts[DROPPED]:,} dropped")
        if not counts.sum():
            raise DataError("has no rows", where=str(candidates), expected="at least one candidate")
    return summary_of(job, judge, counts, out_file)


def summary_of(job: FilterJob, judge: PairJudge, counts: Int64[Array, " reasons"], out: Path) -> ApplySummary:
    """What was done, with the words of the calibration where it cannot drop anything.

    Args:
        job: which filter.
        judge: what it opened.
        counts: rows by reason, in the order of `REASONS`.
        out: where the output lies.
    """
    why = tuple(in_words(read_threshold(job.run_folder, job.model)))
    unused = None if judge.whole_requests else job.request_column
    return ApplySummary(job.model, judge.filter.threshold, tuple(counts.tolist()), out, why, unused)


@contextmanager
def _decider(
    table: OpenTable, judge: PairJudge, job: FilterJob, block: int | None, engine: EngineConfig, sort: bool
) -> Iterator[Callable[[Block], Decisions]]:
    """A function that judges the blocks of a table, one after another."""
    where = str(table.path)
    if not (judge.whole_requests or sort):
        yield lambda one: judge.decide(_keys(one, where, job), where)
        return

    def keys() -> Iterator[pa.Table]:
        for one in table.blocks(block):
            yield _keys(one, where, job)

    with in_file_order(keys(), judge, where, engine) as take:
        yield lambda one: take(len(one))


def _keys(block: Block, where: str, job: FilterJob) -> pa.Table:
    """The columns of a block that the filter needs."""
    if block.columns is not None:
        return block.columns.select(list(job.required))
    numbered = list(enumerate(block.rows, start=block.first_row))
    columns = {name: [_id(row, name, where, number) for number, row in numbered] for name in job.required}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _id(row: dict[str, object], name: str, where: str, number: int) -> str | None:
    if name not in row:
        raise DataError(
            f"has no {name!r}", where=f"{where}, row {number}", mend=f"It has: {', '.join(sorted(row)) or 'nothing'}."
        )
    value = row[name]
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{value!r}", where=f"{where}, row {number}, {name}", expected="text or a whole number")
    return str(value)

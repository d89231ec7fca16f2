"""A block of (user, candidate) pairs judged: Arrow columns in, the filter's decision as Arrow columns out.

The one way from tables to the filter, for files (`bulk.apply`) and for Spark (`bulk.spark`).
Each distinct ID of a block is looked at once, users in the order of the store's keys; no Python object is made for a
pair.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int32, Int64

from conrec.arrays import Array
from conrec.errors import DataError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.decisions import NO_STORE, REASONS, Decisions
from conrec.filtering.filter import NegativeFilter
from conrec.filtering.policy import Policy
from conrec.filtering.stores.base import StoreUnavailableError
from conrec.items.semantic_ids import code_name

__all__ = [
    "ADDED",
    "JUDGED",
    "REQUIRED",
    "Distinct",
    "FilterJob",
    "PairJudge",
    "as_text",
    "distinct_ids",
    "refuse_added",
]

REQUIRED = ("user_id", "item_id")
"""Columns that a table of pairs must have."""
JUDGED = pa.schema(
    [
        ("similarity", pa.float32()),
        ("dropped", pa.bool_()),
        ("nearest_sid", pa.string()),
        ("nearest_item", pa.string()),
        ("reason", pa.string()),
    ]
)
"""Columns that say what the filter decided; similarity, nearest_sid and nearest_item are null where it knows none."""
ADDED = tuple(JUDGED.names)
"""Their names."""
MANY = 0.1
"""Share of the catalogue beyond which a block's items are looked up in one hash join with it, not one by one."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """The IDs of a column.

    Attributes:
        values: str, each once, rising by their UTF-8 bytes.
        row: int64 [n], position of each row's ID in ``values``; -1 where it is null or empty.
    """

    values: pa.Array
    row: Int64[Array, " n"]


@dataclass(frozen=True, slots=True)
class FilterJob:
    """Which filter judges, and what a request is.

    Attributes:
        run_folder: the run.
        model: a row with a predict-set store in it.
        store: where its predict sets lie, a folder or ``valkey://host:port/NAME``; None: in the run.
        policy: None: as the run's settings say.
        request_column: column that says which rows of a user are one request, for `Policy.keep_at_least`; None: all
            his rows are one.
        now: unix seconds, from which the age of predictions counts, so that all rows are judged at one moment.
    """

    run_folder: Path
    model: str
    store: str | None = None
    policy: Policy | None = None
    request_column: str | None = None
    now: float = field(default_factory=time.time)

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a table of pairs must have."""
        return tuple(dict.fromkeys([*REQUIRED, *([self.request_column] if self.request_column else [])]))

    def open(self) -> PairJudge:
        """The filter, checked.

        Raises:
            ConrecError: the run, the model or the store cannot be used.
        """
        found = NegativeFilter.load(self.run_folder, self.model, policy=self.policy, store=self.store)
        return PairJudge(found, self)


class PairJudge:
    """A filter for columns of IDs.

    Args:
        negative_filter: it.
        job: what opened it.
    """

    def __init__(self, negative_filter: NegativeFilter, job: FilterJob) -> None:
        self.filter, self.job = negative_filter, job
        self._item_ids = pa.array(negative_filter.catalogue.item_ids, pa.string())

    @property
    def whole_requests(self) -> bool:
        """Whether the policy counts the candidates of a request, so that these must be judged together."""
        return self.filter.policy.keep_at_least > 0

    def items(self, ids: Distinct) -> Int32[Array, " n"]:
        """Catalogue index of each row's item, -1 where it is unknown, null or empty."""
        if len(ids.values) > MANY * len(self._item_ids):
            found = pc.fill_null(pc.index_in(ids.values, value_set=self._item_ids), -1).to_numpy()
        else:
            found = self.filter.catalogue.indices(ids.values.to_pylist())
        return np.append(found, -1).astype(np.int32)[ids.row]  # the last one is for -1

    def decide(self, pairs: pa.Table, where: str) -> Decisions:
        """Judge n pairs.

        Args:
            pairs: with the columns that the job requires, text or whole numbers; whole requests, if `whole_requests`.
            where: what the table belongs to, for errors.

        Raises:
            DataError: a column of another type, or text that is no UTF-8.
            StoreUnavailableError: the store's server does not answer.
        """
        users, items = (distinct_ids(pairs[name], where, name) for name in REQUIRED)
        requests = users.row
        if self.whole_requests and self.job.request_column is not None:
            named = distinct_ids(pairs[self.job.request_column], where, self.job.request_column)
            requests = (users.row + 1) * (len(named.values) + 1) + named.row + 1
        decisions = self.filter.decide_rows(
            users.values.to_pylist(), users.row, self.items(items), requests, now=self.job.now
        )
        if (decisions.reason == NO_STORE).any():
            # Online, everything is kept until it answers; here somebody can wait and begin again.
            raise StoreUnavailableError(
                "the store did not answer", where=str(self.job.store), mend="Give the same command again once it does."
            )
        return decisions

    def columns(self, decisions: Decisions) -> dict[str, pa.Array]:
        """Decisions as the columns of `JUDGED`."""
        nearest = pa.array(decisions.nearest, mask=decisions.nearest < 0).dictionary_encode()
        names = self._item_ids.take(nearest.dictionary)
        sids = _sid_texts(self.filter.catalogue, nearest.dictionary.to_numpy())
        made = (
            pa.array(decisions.similarity, pa.float32(), mask=np.isnan(decisions.similarity)),
            pa.array(decisions.dropped, pa.bool_()),
            sids.take(nearest.indices),
            names.take(nearest.indices),
            pa.array(REASONS, pa.string()).take(pa.array(decisions.reason)),
        )
        return dict(zip(ADDED, made, strict=True))


def refuse_added(names: Collection[str], where: str) -> None:
    """Refuse a table that has one of the columns to be added.

    Raises:
        DataError: it has.
    """
    for name in ADDED:
        if name in names:
            raise DataError(
                f"already has a column {name!r}",
                where=where,
                expected="none of " + ", ".join(ADDED),
                mend="Rename it: the filter writes its decision there.",
            )


def as_text(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    """A column of IDs, plain: text or whole numbers, a dictionary's values in its place.

    Raises:
        DataError: it is of another type.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return column.cast(kind)
    raise DataError(f"has the type {kind}", where=f"{where}, column {name}", expected="text or whole numbers")


def distinct_ids(column: pa.ChunkedArray, where: str, name: str) -> Distinct:
    """Each ID of a column once; whole numbers by their decimal text.

    Args:
        column: n IDs.
        where: what the column belongs to, for errors.
        name: of the column, for errors.

    Raises:
        DataError: it is neither text nor whole numbers, or not UTF-8.
    """
    codes = as_text(column, where, name).combine_chunks().dictionary_encode()
    values = codes.dictionary.cast(pa.large_string())
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"has text that is not UTF-8 ({error})", where=f"{where}, column {name}") from None
    order = pc.sort_indices(values)
    rank = np.empty(len(values) + 1, dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(values))
    rank[-1] = -1  # null
    values = values.take(order)
    row = rank[codes.indices.fill_null(len(values)).to_numpy()]
    if len(values) and values[0].as_py() == "":
        values, row = values.slice(1), row - (row >= 0)
    return Distinct(values, row)


def _sid_texts(catalogue: FilterCatalogue, items: Int32[Array, " n"]) -> pa.Array:
    """`FilterCatalogue.sid_text` of n items, as an Arrow array."""
    codes = catalogue.sids.resolved[items]
    names = [
        # Each level's prefix, as `conrec.items.semantic_ids.code_name` has it.
        pc.binary_join_element_wise(code_name(level, 0)[:-1], pa.array(column).cast(pa.string()), "")
        for level, column in enumerate(np.ascontiguousarray(codes.T))
    ]
    return pc.binary_join_element_wise(*names, " ")

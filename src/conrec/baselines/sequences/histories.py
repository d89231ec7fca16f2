"""Histories as tensors: what a network over sequences reads of each user before the time of a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from conrec.arrays import Array
from conrec.logs.log import Log
from conrec.recommender import Queries

__all__ = ["Histories", "padded", "read_histories"]


@dataclass(frozen=True, slots=True)
class Histories:
    """The latest events of B users, oldest first, padded behind their ends.

    Attributes:
        user: int64 [B], index into the log's users.
        asked: int64 [B], time of the question, seconds UTC.
        item: int64 [B, T], -1 where padded; T is the longest of the batch and may be 0.
        feedback: int64 [B, T], -1, 0 or +1; 0 where padded.
        timestamp: int64 [B, T], seconds UTC; 0 where padded.
        length: int64 [B], events that are there.
    """

    user: Int64[Tensor, " B"]
    asked: Int64[Tensor, " B"]
    item: Int64[Tensor, "B T"]
    feedback: Int64[Tensor, "B T"]
    timestamp: Int64[Tensor, "B T"]
    length: Int64[Tensor, " B"]


def read_histories(log: Log, queries: Queries, max_length: int, signs: Sequence[int]) -> Histories:
    """The last events of the given signs before each question.

    Args:
        log: only events strictly before a query's time are read.
        queries: B questions.
        max_length: events of one history, the latest; more are left out.
        signs: of the feedback that is read, some of -1, 0, +1.
    """
    rows = []
    for user, timestamp in zip(queries.user, queries.timestamp, strict=True):
        past = log.history(int(user), int(timestamp))
        rows.append(past[np.isin(log.feedback[past], signs)][-max_length:] if max_length else past[:0])
    return Histories(
        torch.from_numpy(queries.user.astype(np.int64)),
        torch.from_numpy(queries.timestamp.astype(np.int64)),
        padded([log.item[row] for row in rows], -1),
        padded([log.feedback[row] for row in rows], 0),
        padded([log.timestamp[row] for row in rows], 0),
        torch.tensor([len(row) for row in rows], dtype=torch.int64),
    )


def padded(rows: Sequence[Array], fill: int) -> Int64[Tensor, "B T"]:
    """Rows of different length as one tensor, filled behind their ends.

    >>> padded([np.array([4]), np.array([5, 6])], -1).tolist()
    [[4, -1], [5, 6]]
    """
    result = np.full((len(rows), max((len(row) for row in rows), default=0)), fill, dtype=np.int64)
    for position, row in enumerate(rows):
        result[position, : len(row)] = row
    return torch.from_numpy(result)

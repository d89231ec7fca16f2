"""One shard on disk: its rows, and what it says of itself, compared with the plan it lies under. No torch needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.errors import ArtefactError
from conrec.predicting.plan import PREDICT_SETS, Plan, refuse_other

__all__ = ["DamagedShardError", "read_shard", "shard_schema"]

_KEY = b"conrec.shard"


class DamagedShardError(ArtefactError):
    """A shard that cannot be read, or does not say what it was made from."""


def shard_schema(plan: Plan, shard: int, users: str) -> pa.Schema:
    """`PREDICT_SETS` with what a shard says of itself.

    Args:
        plan: what the folder holds.
        shard: which one, from 0.
        users: hash of its questions, see `conrec.predicting.users.Asked.digest`.
    """
    stated = json.dumps(_stated(plan, shard, users), sort_keys=True)
    return PREDICT_SETS.with_metadata({_KEY: stated.encode()})


def read_shard(plan: Plan, shard: int, users: str | None = None) -> Iterator[pa.Table]:
    """The rows of a shard, schema `PREDICT_SETS`, piece by piece, after what it says of itself has been compared.

    Args:
        plan: what the shard has to be made from.
        shard: which one, from 0.
        users: hash that its questions must have; None: any.

    Raises:
        DamagedShardError: it cannot be read.
        ArtefactError: it was made from something else, or is another shard under this one's name.
    """
    path = plan.path(shard)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = json.loads((file.schema_arrow.metadata or {})[_KEY])
            expected = _stated(plan, shard, found["users"] if users is None else users)
            there = {key: found[key] for key in expected}
            if file.schema_arrow.remove_metadata() != PREDICT_SETS:
                raise ValueError(f"columns {', '.join(file.schema_arrow.names)}")
            refuse_other(path, there.pop("made_from"), expected.pop("made_from"))
            refuse_other(path, there, expected)
            for group in range(file.num_row_groups):
                yield file.read_row_group(group)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DamagedShardError(
            f"is damaged ({reason})", where=str(path), mend="Give the same `conrec predict` command again."
        ) from None


def _stated(plan: Plan, shard: int, users: str) -> dict[str, Any]:
    """What a shard says of itself."""
    begin, end = plan.rows(shard)
    return {"made_from": plan.made_from, "shard": shard, "questions": end - begin, "users": users}

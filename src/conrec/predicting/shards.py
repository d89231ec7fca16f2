"""Predict sets on disk: one Parquet file a shard, each finished or not there, each knowing what it was made from.

A shard holds in its own metadata what it was made from, so that one that lies there is either kept, because nothing
differs, or refused. Any number of processes may work in one folder on different shards.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conrec.artefacts import replacing, saying_disk_full
from conrec.predicting.plan import MANIFEST, Plan
from conrec.predicting.predictor import BLOCK, Predictor, predict_batches
from conrec.predicting.shard_file import DamagedShardError, read_shard, shard_schema
from conrec.predicting.users import Asked
from conrec.progress import console, meter

__all__ = ["Done", "write_shards"]

YOUNG = 60
"""Seconds in which a temporary file may still be without the lock of its writer."""


@dataclass(frozen=True, slots=True)
class Done:
    """What `write_shards` found and did.

    Attributes:
        before: shards that were finished before.
        written: shards that were written now.
        short: questions of both with fewer than k items in their answer.
    """

    before: int
    written: int
    short: int


def write_shards(plan: Plan, predictor: Predictor, asked: Asked, mine: Sequence[int]) -> Done:
    """Predict the shards ``mine`` that are not there yet, with a progress bar.

    Args:
        plan: claimed before.
        predictor: the one the plan was made for.
        asked: the questions of all shards.
        mine: shards of this process.

    Raises:
        ArtefactError: a file of a shard's name was made from something else, or another command has taken the folder.
        OSError: the disk is full, among others; finished shards stay.
    """
    _clear(plan, mine)
    k = predictor.job.k
    digests = {shard: asked.digest(*plan.rows(shard)) for shard in mine}
    answered = {shard: _finished(plan, shard, digests[shard], k) for shard in mine}
    todo = [shard for shard in mine if answered[shard] is None]
    sizes = {shard: plan.rows(shard)[1] - plan.rows(shard)[0] for shard in mine}
    full = sum(one for one in answered.values() if one is not None)
    with meter("predict sets", sum(sizes[shard] for shard in todo)) as tick:
        for number, shard in enumerate(todo, start=1):
            note = f"shard {number} of {len(todo)}"
            tick(0, note)
            begin, end = plan.rows(shard)
            schema = shard_schema(plan, shard, digests[shard])
            path = plan.path(shard)
            with saying_disk_full(path), replacing(path) as temporary, _held(temporary):
                plan.confirm()  # nobody replaces the plan any more once this file is there
                options = {"compression": "zstd", "write_page_checksum": True}
                with pq.ParquetWriter(temporary, schema, **options) as writer:
                    for batch in asked.table.slice(begin, end - begin).to_batches(max_chunksize=BLOCK):
                        for answer in predict_batches([batch], predictor):
                            writer.write_batch(answer)
                            full += _full(answer["rank"], k)
                        tick(batch.num_rows, note)
                plan.confirm()
    return Done(len(mine) - len(todo), len(todo), sum(sizes.values()) - full)


def _finished(plan: Plan, shard: int, digest: str, k: int) -> int | None:
    """Whether a shard is there, whole, and made from the same; one that cannot be read is made again.

    Returns:
        How many of its answers have k items; None where it is to be written.
    """
    if not plan.path(shard).is_file():
        return None
    try:
        return sum(_full(piece["rank"], k) for piece in read_shard(plan, shard, digest))
    except DamagedShardError as error:
        console.print(f"{plan.path(shard).name} {error.found}; it is made again", markup=False, highlight=False)
        return None


def _full(rank: pa.Array | pa.ChunkedArray, k: int) -> int:
    """Answers with a rank k."""
    return int(np.count_nonzero(rank.to_numpy() == k))


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock on a new file, which ends with the process however that ends."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _clear(plan: Plan, mine: Sequence[int]) -> None:
    """Remove what a killed process left under temporary names; others may be writing theirs at this moment.

    Only files of this process's own shards: on network file systems a lock of another machine may not be seen.
    """
    names = {MANIFEST, *(plan.path(shard).name for shard in mine)}
    for left in plan.folder.glob(".*.tmp"):
        if left.name[1:].rsplit(".", 2)[0] in names and _abandoned(left):
            left.unlink(missing_ok=True)


def _abandoned(path: Path) -> bool:
    """Whether nobody writes a temporary file any more."""
    try:
        with path.open("rb") as handle:
            if time.time() - os.fstat(handle.fileno()).st_mtime < YOUNG:
                return False
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, gone, or no locks here
        return False
    return True

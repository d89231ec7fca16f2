"""Predict sets on disk: one Parquet file a shard, each finished or not there, each knowing what it was made from.

A shard holds in its own metadata what it was made from, so that one that lies there is either kept, because nothing
differs, or refused. Any number of processes may work in one folder on different shards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.artefacts import replacing, saying_disk_full
from conrec.predicting.plan import PREDICT_SETS, Plan, refuse_other
from conrec.predicting.predictor import BLOCK, Predictor, predict_batches
from conrec.predicting.users import Asked
from conrec.progress import console, meter

__all__ = ["write_shards"]

STALE = 600
"""Seconds after which a temporary file that nobody writes to is taken for one of a killed process."""
_KEY = b"conrec.shard"


def write_shards(plan: Plan, predictor: Predictor, asked: Asked, mine: Sequence[int]) -> tuple[int, int]:
    """Predict the shards ``mine`` that are not there yet, with a progress bar.

    Args:
        plan: claimed before.
        predictor: the one the plan was made for.
        asked: the questions of all shards.
        mine: shards of this process.

    Returns:
        How many shards were finished before, and how many were written now.

    Raises:
        ArtefactError: a file of a shard's name was made from something else.
        OSError: the disk is full, among others; finished shards stay.
    """
    _clear(plan.folder)
    digests = {shard: asked.digest(*plan.rows(shard)) for shard in mine}
    todo = [shard for shard in mine if not _finished(plan, shard, digests[shard])]
    sizes = {shard: plan.rows(shard)[1] - plan.rows(shard)[0] for shard in todo}
    with meter("predict sets", sum(sizes.values())) as tick:
        for number, shard in enumerate(todo, start=1):
            note = f"shard {number} of {len(todo)}"
            tick(0, note)
            begin, end = plan.rows(shard)
            stated = json.dumps({"made_from": plan.made_from, "users": digests[shard]}, sort_keys=True)
            schema = PREDICT_SETS.with_metadata({_KEY: stated.encode()})
            path = plan.path(shard)
            with saying_disk_full(path), replacing(path) as temporary:
                options = {"compression": "zstd", "write_page_checksum": True}
                with pq.ParquetWriter(temporary, schema, **options) as writer:
                    for batch in asked.table.slice(begin, end - begin).to_batches(max_chunksize=BLOCK):
                        for answer in predict_batches([batch], predictor):
                            writer.write_batch(answer)
                        tick(batch.num_rows, note)
    return len(mine) - len(todo), len(todo)


def _finished(plan: Plan, shard: int, digest: str) -> bool:
    """Whether a shard is there, whole, and made from the same; one that cannot be read is made again."""
    path = plan.path(shard)
    if not path.is_file():
        return False
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            stated = json.loads((file.schema_arrow.metadata or {})[_KEY])
            for group in range(file.num_row_groups):
                file.read_row_group(group)
        made_from, users = stated["made_from"], stated["users"]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        console.print(f"{path.name} is damaged ({reason}); it is made again", markup=False, highlight=False)
        return False
    refuse_other(path, made_from, plan.made_from)
    refuse_other(path, {"users": users}, {"users": digest})
    return True


def _clear(folder: Path) -> None:
    """Remove what a killed process left under temporary names; others may be writing theirs at this moment."""
    for left in folder.glob(".*.tmp"):
        try:
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()
        except FileNotFoundError:
            continue

"""Predict sets on disk: one Parquet file a shard, each finished or not there, each knowing what it was made from.

::

    predict.json                     what all shards are made from, written before the first of them
    part-00003-of-00016.parquet      the predict sets of the fourth sixteenth of the questions, in their order

A shard holds in its own metadata what it was made from, so that one that lies there is either kept, because nothing
differs, or refused. Any number of processes may work in one folder on different shards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from conrec.artefacts import read_json, replacing, saying_disk_full, write_json
from conrec.errors import ArtefactError, ConfigError
from conrec.predicting.predictor import BLOCK, PREDICT_SETS, Predictor, predict_batches
from conrec.predicting.users import Asked
from conrec.progress import console, meter

__all__ = ["MANIFEST", "Plan", "read_plan", "shard_name", "write_shards"]

MANIFEST = "predict.json"
FORMAT = "conrec-predict-shards"
PER_SHARD = 4096
"""Questions of a shard where their number is not given."""
STALE = 600
"""Seconds after which a temporary file that nobody writes to is taken for one of a killed process."""
_KEY = b"conrec.shard"


@dataclass(frozen=True)
class Plan:
    """What a folder of shards holds once it is finished.

    Attributes:
        folder: where the shards lie.
        made_from: JSON of everything that they depend on.
        shards: how many there are.
        questions: of all shards together.
    """

    folder: Path
    made_from: dict[str, Any]
    shards: int
    questions: int

    @classmethod
    def of(cls, folder: Path, predictor: Predictor, asked: Asked, shards: int | None) -> Plan:
        """The plan of some questions; ``shards`` None: one for every 4,096 questions.

        Raises:
            ConfigError: there are fewer questions than shards, or fewer than one shard.
        """
        count = -(-len(asked) // PER_SHARD) if shards is None else shards
        if not 1 <= count <= len(asked):
            raise ConfigError(f"{count} shards", where="--shards", expected=f"from 1 to the {len(asked)} questions")
        times = asked.table["timestamp"].to_numpy()
        questions = {"number": len(asked), "times": [int(times.min()), int(times.max())], "hash": asked.digest()}
        made_from = {**predictor.made_from(), "questions": questions, "shards": count}
        return cls(folder, made_from, count, len(asked))

    def rows(self, shard: int) -> tuple[int, int]:
        """First question of a shard, and the one after its last."""
        return shard * self.questions // self.shards, (shard + 1) * self.questions // self.shards

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / shard_name(shard, self.shards)

    def missing(self) -> list[int]:
        """Shards whose file is not there."""
        return [shard for shard in range(self.shards) if not self.path(shard).is_file()]

    def claim(self) -> None:
        """Write ``predict.json``, or check that the one that is there says the same.

        Raises:
            ArtefactError: the folder was made from something else, or holds something else.
        """
        path = self.folder / MANIFEST
        content = {"format": FORMAT, "made_from": self.made_from, "questions": self.questions, "shards": self.shards}
        if path.is_file():
            there = read_plan(self.folder)
            _refuse_other(path, there.made_from, self.made_from)
            return
        strangers = [one.name for one in self.folder.glob("*") if not one.name.startswith(".")]
        if strangers:
            raise ArtefactError(
                f"the folder holds {strangers[0]!r} and no {MANIFEST}",
                where=str(self.folder),
                expected="a new or empty folder, or one of the same command",
                mend="Give another --out.",
            )
        write_json(path, content)


def read_plan(folder: Path) -> Plan:
    """The plan of a folder.

    Raises:
        ArtefactError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtefactError(
            "there are no predict sets here", where=str(folder), expected="a folder of `conrec predict`"
        )
    content = read_json(path)
    try:
        made_from, shards, questions = content["made_from"], int(content["shards"]), int(content["questions"])
        fits = content["format"] == FORMAT and isinstance(made_from, dict)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ArtefactError("is not the plan of predict sets", where=str(path), expected=f"format {FORMAT!r}")
    return Plan(folder, made_from, shards, questions)


def shard_name(shard: int, shards: int) -> str:
    """Name of a shard's file, shards counted from 0."""
    return f"part-{shard:05d}-of-{shards:05d}.parquet"


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
    _refuse_other(path, made_from, plan.made_from)
    _refuse_other(path, {"users": users}, {"users": digest})
    return True


def _refuse_other(path: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise where two accounts of what was made from what differ, naming each difference."""
    old, new = _flat(there), _flat(now)
    differing = [
        f"{key} ({_short(old.get(key))} there, {_short(new.get(key))} now)"
        for key in dict.fromkeys([*new, *old])
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise ArtefactError(
            f"was made from other inputs: {'; '.join(differing)}",
            where=str(path),
            mend="Give another --out, or remove the folder.",
        )


def _flat(value: dict[str, Any], head: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    result: dict[str, Any] = {}
    for key, inner in value.items():
        result.update(_flat(inner, f"{head}{key}.") if isinstance(inner, dict) and inner else {f"{head}{key}": inner})
    return result


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:8]}…"
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def _clear(folder: Path) -> None:
    """Remove what a killed process left under temporary names; others may be writing theirs at this moment."""
    for left in folder.glob(".*.tmp"):
        try:
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()
        except FileNotFoundError:
            continue

"""What a folder of predict sets holds, and what it was made from. No torch needed.

::

    predict.json                     what all shards are made from, written before the first of them
    part-00003-of-00016.parquet      the predict sets of the fourth sixteenth of the questions, in their order
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from conrec.artefacts import hash_file, read_json, write_json
from conrec.errors import ArtefactError, ConfigError
from conrec.predicting.users import Asked

__all__ = ["MANIFEST", "PREDICT_SETS", "Plan", "read_plan", "refuse_other", "shard_name", "weights_hash"]

PREDICT_SETS = pa.schema(
    [
        ("user_id", pa.string()),
        ("timestamp", pa.int64()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float32()),
        ("codes", pa.list_(pa.int32())),
    ]
)
"""Columns of what comes out: rank from 1, and the resolved codes of the item's semantic ID."""
MANIFEST = "predict.json"
FORMAT = "conrec-predict-shards"
PER_SHARD = 4096
"""Questions of a shard where their number is not given."""


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
    def of(cls, folder: Path, made_from: Mapping[str, Any], asked: Asked, shards: int | None) -> Plan:
        """The plan of some questions.

        Args:
            folder: where the shards will lie.
            made_from: what the answers depend on besides the questions.
            asked: the questions.
            shards: how many; None: one for every 4,096 questions.

        Raises:
            ConfigError: there are fewer questions than shards, or fewer than one shard.
        """
        count = -(-len(asked) // PER_SHARD) if shards is None else shards
        if not 1 <= count <= len(asked):
            raise ConfigError(f"{count} shards", where="--shards", expected=f"from 1 to the {len(asked)} questions")
        times = asked.table["timestamp"].to_numpy()
        questions = {"number": len(asked), "times": [int(times.min()), int(times.max())], "hash": asked.digest()}
        everything = {**made_from, "questions": questions, "shards": count}
        return cls(folder, everything, count, len(asked))

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

        A plan of which nothing was done yet, because its command failed, is replaced.

        Raises:
            ArtefactError: the folder was made from something else, or holds something else.
            ConfigError: it is a file.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(
                "this is a file", where=f"--out {self.folder}", expected="a folder, new or of this command"
            )
        path = self.folder / MANIFEST
        content = {"format": FORMAT, "made_from": self.made_from, "questions": self.questions, "shards": self.shards}
        if path.is_file():
            there = read_plan(self.folder).made_from
            if there == self.made_from:
                return
            if any(self.folder.glob("*part-*")):  # finished, or being written by somebody
                refuse_other(path, there, self.made_from)
        strangers = [one.name for one in self.folder.glob("*") if not one.name.startswith(".") and one.name != MANIFEST]
        if strangers:
            raise ArtefactError(
                f"the folder holds {strangers[0]!r}, which belongs to no predict sets",
                where=str(self.folder),
                expected="a new or empty folder, or one of the same command",
                mend="Give another --out.",
            )
        write_json(path, content)

    def confirm(self) -> None:
        """Check that the folder still belongs to this plan.

        Between `claim` and the first file of a shard, another command may have taken the folder for one of which
        nothing was done. After the first file there is no such command.

        Raises:
            ArtefactError: it has.
        """
        refuse_other(self.folder / MANIFEST, read_plan(self.folder).made_from, self.made_from)


def weights_hash(run_folder: Path, model: str) -> str:
    """Hash of what a row of a run has learned: its model, or the log where it is counted anew whenever it is asked."""
    folder = run_folder / "models" / model / "model"
    return hash_file(folder if folder.exists() else run_folder / "data" / "events.parquet")


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


def refuse_other(path: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare what a file was made from with what it would be made from now.

    Raises:
        ArtefactError: they differ, with each difference.
    """
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

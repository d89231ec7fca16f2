"""A trained row of a run, ready to be asked in bulk; and the one function that asks it, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from conrec import __version__
from conrec.arrays import Array
from conrec.artefacts import hash_file
from conrec.config import Config, load_config
from conrec.errors import ArtefactError, ConfigError, DataError, MissingExtraError, did_you_mean
from conrec.filtering.catalogue import hash_semantic_ids
from conrec.logs.log import Log
from conrec.predicting.histories import Histories, read_histories
from conrec.predicting.plan import PREDICT_SETS
from conrec.predicting.users import end_of, has_history
from conrec.recommender import Queries, Ranking
from conrec.rows import REFERENCE, rows_of
from conrec.workspace import WITHOUT_WEIGHTS, Workspace

__all__ = ["BLOCK", "ENGINES", "PredictJob", "Predictor", "predict_batches"]

ENGINES = ("transformers", "vllm")
"""What runs the language model: our own token tree, or vLLM (extra ``vllm``)."""
BLOCK = 1024
"""Questions that are answered together: histories of similar length can then share a batch."""
OVERRIDABLE = ("data", "run")
"""Sections of the configuration that a job may set: how newer events are written, and the machine."""
ASKED_TYPES = {"user_id": "text", "timestamp": "whole numbers"}


@runtime_checkable
class CanPredict(Protocol):
    """What a predictor needs of a `conrec.recommender.Recommender`."""

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking: ...


@dataclass(frozen=True)
class PredictJob:
    """What is predicted with: plain values, so that it can be sent to another machine that sees the same files.

    Attributes:
        run_folder: a run in which this row is trained.
        model: a row of the run's table.
        k: size of the predict sets.
        at: time of questions that have none of their own; None: the end of the log.
        events: newer events to take histories from, see `conrec.predicting.histories`.
        overrides: nested settings of ``data`` (how ``events`` is read) and ``run`` (threads, device, precision).
        batch_size: prompts read at a time; None: as the run has it.
        engine: one of `ENGINES`.
    """

    run_folder: Path
    model: str = REFERENCE
    k: int = 50
    at: int | None = None
    events: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    engine: str = "transformers"


class Predictor:
    """A row of a run that answers questions.

    Attributes:
        job: what it was made from.
        config: the run's, with the job's overrides.

    Raises:
        ConfigError: a value of the job does not fit.
        ArtefactError: there is no such run, or the row is not trained yet.
    """

    def __init__(self, job: PredictJob) -> None:
        self.job = job
        self.config = _config(job)
        self.space = Workspace(job.run_folder, self.config)
        _check(job, self.config)

    @cached_property
    def histories(self) -> Histories:
        """The log, and what was read of newer events."""
        return read_histories(self.job.run_folder, self.job.events, self.config.data)

    @property
    def log(self) -> Log:
        """Where histories come from."""
        return self.histories.log

    @cached_property
    def at(self) -> int:
        """Time of questions that have none of their own."""
        return end_of(self.log) if self.job.at is None else self.job.at

    @cached_property
    def recommender(self) -> CanPredict:
        """The trained row; loaded when it is first asked."""
        if self.job.engine == "vllm":
            from conrec.llm.vllm import VllmRecommender  # noqa: PLC0415  (an extra)

            space, name = self.space, self.job.model
            folder, exact = space.folder / "models" / name / "model", self.config.prediction.certified
            return VllmRecommender.load(folder, space.trie, self.config.prompts, space.context(name), exact)
        return self.space.recommender(self.job.model)

    @cached_property
    def _codes(self) -> Array:
        """Resolved codes, int32 [items, 3]."""
        return np.ascontiguousarray(self.space.items.semantic_ids.resolved, dtype=np.int32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.log.user_ids)}

    def made_from(self) -> dict[str, Any]:
        """What an answer depends on besides its question, as JSON: hashes of what is large, values of the rest."""
        job, config, folder = self.job, self.config, self.job.run_folder
        counted = job.model in WITHOUT_WEIGHTS
        weights = folder / "data" / "events.parquet" if counted else folder / "models" / job.model / "model"
        items = self.space.items
        made: dict[str, Any] = {
            "version": __version__,
            "model": job.model,
            "weights": hash_file(weights),
            "semantic IDs": hash_semantic_ids(items.item_ids, items.semantic_ids),
            "events of the run": hash_file(folder / "data" / "events.parquet"),
            "newer events": None if job.events is None else hash_file(job.events),
            "k": job.k,
            "engine": job.engine,
            "history_eligible": config.protocol.history_eligible,
        }
        if counted:
            made["popularity"] = config.popularity.model_dump(mode="json")
        elif job.model != "sasrec":
            made["prompts"] = config.prompts.model_dump(mode="json")
            made["context"] = self.space.context(job.model)
            made["certified"] = config.prediction.certified
            made["precision"] = config.run.precision
        if job.events is not None:
            left_out = {"source", "folder", "events", "items", "cache"}
            made["data"] = config.data.model_dump(mode="json", exclude=left_out)
        return made

    def ask(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Predict sets of some questions.

        Args:
            batch: ``user_id`` (text) and, where the job's time does not hold for all, ``timestamp`` (seconds UTC).

        Returns:
            Schema `PREDICT_SETS`, in the order of the questions and of ranks. A user without an event before the
            time has no rows, and an item that is not eligible is never among them.

        Raises:
            DataError: there is no column ``user_id``, or a value is null or of another type.
        """
        names, times = self._questions(batch)
        users = np.asarray([self._index.get(name, -1) for name in names], dtype=np.int32)
        pairs = zip(users.tolist(), times.tolist(), strict=True)
        asked = np.flatnonzero([user >= 0 and has_history(self.log, user, at) for user, at in pairs])
        eligible = self.config.protocol.history_eligible
        queries = Queries(users[asked], times[asked])
        ranking = self.recommender.predict(self.log, queries, self.job.k, history_eligible=eligible)
        row, place = np.nonzero(ranking.item >= 0)
        item = ranking.item[row, place]
        question = pa.array(asked[row])
        codes = self._codes[item]
        offsets = np.arange(len(item) + 1, dtype=np.int32) * codes.shape[1]
        columns = [
            pa.array(names, pa.string()).take(question),
            pa.array(times, pa.int64()).take(question),
            pa.array((place + 1).astype(np.int32)),
            self._item_ids.take(pa.array(item)),
            pa.array(ranking.score[row, place].astype(np.float32)),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(codes.ravel())),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=PREDICT_SETS)

    @cached_property
    def _item_ids(self) -> pa.Array:
        return pa.array(self.log.item_ids, pa.string())

    def _questions(self, batch: pa.RecordBatch) -> tuple[list[str], Array]:
        """User IDs, and times int64 [questions]."""
        if "user_id" not in batch.schema.names:
            raise DataError(
                f"the columns are {', '.join(batch.schema.names)}", where="questions", expected="user_id, as text"
            )
        timed = self.job.at is None and "timestamp" in batch.schema.names
        for name, kind in ASKED_TYPES.items():
            if name in batch.schema.names and (timed or name == "user_id"):
                column = batch.column(name)
                if column.null_count or not _fits(column.type, kind):
                    what = f"{column.null_count} nulls in the column" if column.null_count else f"type {column.type}"
                    raise DataError(what, where=f"questions, column {name!r}", expected=f"{kind}, without nulls")
        names: list[str] = batch.column("user_id").to_pylist()
        if not timed:
            return names, np.full(len(names), self.at, dtype=np.int64)
        return names, batch.column("timestamp").to_numpy(zero_copy_only=False).astype(np.int64)


def predict_batches(batches: Iterable[pa.RecordBatch], predictor: Predictor) -> Iterator[pa.RecordBatch]:
    """Predict sets of all questions, batch by batch, in their order.

    The one function behind ``conrec predict``, Spark's ``mapInArrow`` and torchrun. What a question is answered does
    not depend on the others, up to the rounding of a batch.

    Args:
        batches: see `Predictor.ask`; long ones are cut.
        predictor: what answers.
    """
    for batch in batches:
        for begin in range(0, batch.num_rows, BLOCK):
            yield predictor.ask(batch.slice(begin, BLOCK))


def _fits(kind: pa.DataType, wanted: str) -> bool:
    if wanted == "text":
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
    return bool(pa.types.is_integer(kind))


def _config(job: PredictJob) -> Config:
    """The run's configuration with the overrides of the job."""
    if not (job.run_folder / "config.toml").is_file():
        raise ArtefactError("there is no run here", where=str(job.run_folder), expected="a folder of `conrec run`")
    for section in job.overrides:
        if section not in OVERRIDABLE:
            raise ConfigError(
                f"{section!r} belongs to the trained run",
                where="--set",
                expected="only " + " and ".join(f"{one}.…" for one in OVERRIDABLE),
                mend="Train another run for other settings.",
            )
    values: dict[str, Any] = dict(job.overrides)
    if job.batch_size is not None:
        values["prediction"] = {"batch_size": job.batch_size}
    return load_config(file=job.run_folder / "config.toml", overrides=values)


def _check(job: PredictJob, config: Config) -> None:
    """Refuse before anything is loaded what cannot be answered."""
    rows = rows_of(config)
    if job.model not in rows:
        raise ConfigError(
            f"there is no row {job.model!r} in this run", where="--model", mend=did_you_mean(job.model, rows)
        )
    if job.k < 1:
        raise ConfigError(f"k = {job.k}", where="--k", expected="at least 1")
    if job.engine not in ENGINES:
        raise ConfigError(
            f"there is no engine {job.engine!r}", where="--engine", mend=did_you_mean(job.engine, ENGINES)
        )
    if job.engine == "vllm" and job.model in (*WITHOUT_WEIGHTS, "sasrec"):
        raise ConfigError(f"{job.model!r} is no language model", where="--engine", mend="Leave --engine away.")
    if job.engine == "vllm" and find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm")
    if job.model not in WITHOUT_WEIGHTS and not (job.run_folder / "models" / job.model / "model").exists():
        raise ArtefactError(
            f"the row {job.model!r} is not trained yet",
            where=str(job.run_folder / "models"),
            mend="Give the command of the run again: it continues.",
        )

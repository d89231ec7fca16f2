"""A trained row of a run, ready to be asked in bulk; and the one function that asks it, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from operator import attrgetter
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch

from conrec import __version__
from conrec.arrays import Array
from conrec.artefacts import hash_file
from conrec.baselines.registry import REGISTRY, context_of, counted, generative, own_items, trained_row
from conrec.errors import ConfigError, DataError
from conrec.items.eligible import LiveItems
from conrec.items.growing.growth import current_catalogue, what_does_not_fit
from conrec.items.space import hash_semantic_ids
from conrec.items.trie import Trie
from conrec.logs.log import Log
from conrec.predicting.histories import Histories, read_histories
from conrec.predicting.job import PredictJob, check, refuse_unranked, resolved
from conrec.predicting.plan import PREDICT_SETS, weights_hash
from conrec.predicting.pool import Pool, read_pool
from conrec.predicting.times import far_ahead
from conrec.predicting.users import end_of, has_history
from conrec.recommender import Queries, Ranking
from conrec.workspace import Workspace

__all__ = ["BLOCK", "Predictor", "predict_batches"]

BLOCK = 1024
"""Questions that are answered together: histories of similar length can then share a batch."""
ASKED_TYPES = {"user_id": "text", "timestamp": "whole numbers"}


@runtime_checkable
class CanPredict(Protocol):
    """What a predictor needs of a `conrec.recommender.Recommender`."""

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking: ...


class Predictor:
    """A row of a run that answers questions.

    Attributes:
        job: what it was made from.
        config: the run's, with the job's overrides.

    Raises:
        ConfigError: a value of the job does not fit.
        ArtefactError: there is no such run, or the row is not trained yet.
        NotApplicableError: the log of the run does not allow the row, or the row ranks no catalogue.
    """

    def __init__(self, job: PredictJob) -> None:
        self.job = job
        self.config = resolved(job)
        self.space = Workspace(job.run_folder, self.config, grown=not own_items(job.model))
        check(job, self.config)

    @cached_property
    def histories(self) -> Histories:
        """The log, and what was read of newer events."""
        job = self.job
        found = read_histories(job.run_folder, job.events, self.config.data, self.space.catalogue.items)
        if not own_items(job.model):
            return found
        # What this row does not read must not stop it.
        note = f"note: {job.model!r} knows the items of the run alone"
        if wrong := what_does_not_fit(job.run_folder):
            note += f"; those that were appended cannot be read: {wrong}"
        elif unknown := current_catalogue(job.run_folder).appended:
            note += f", none of the {unknown:,} that were appended"
        else:
            return found
        return replace(found, lines=(*found.lines, note))

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
            if self.pool is not None and self.pool.prior is not None:
                raise ConfigError(
                    "priors are not known to vLLM's search", where="--items", mend="Leave out the column."
                )
            loaded = VllmRecommender.load(folder, space.trie, self.config.prompts, context_of(name, self.config), exact)
            pool = None if self.pool is None else self._live(loaded.trie, self.pool)
            return replace(loaded, budget=self.config.prediction.node_budget, pool=pool)
        name = self.job.model
        if self.pool is None:
            row = trained_row(self.space, name)
            if why := getattr(row, "unranked", ""):
                refuse_unranked(name, why)
            return row
        model = self.space.generative(self.space.backbone(name), context_of(name, self.config))
        return replace(model, pool=self._live(model.trie, self.pool))

    @cached_property
    def pool(self) -> Pool | None:
        """What may be predicted, where a file says it."""
        return None if self.job.items is None else read_pool(self.job.items, self.log.item_ids)

    @staticmethod
    def _live(trie: Trie, pool: Pool) -> LiveItems:
        prior = None if pool.prior is None else torch.from_numpy(pool.prior)
        return LiveItems(trie, torch.from_numpy(pool.live), prior)

    @cached_property
    def _codes(self) -> Array:
        """Resolved codes, int32 [items, levels]."""
        return np.ascontiguousarray(self.space.items.semantic_ids.resolved, dtype=np.int32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.log.user_ids)}

    def made_from(self) -> dict[str, Any]:
        """What an answer depends on besides its question, as JSON: hashes of what is large, values of the rest."""
        job, config, folder = self.job, self.config, self.job.run_folder
        items = self.space.items
        made: dict[str, Any] = {
            "version": __version__,
            "model": job.model,
            "weights": weights_hash(folder, job.model),
            "semantic IDs": hash_semantic_ids(items.item_ids, items.semantic_ids),
            "events of the run": hash_file(folder / "data" / "events.parquet"),
            "newer events": None if job.events is None else hash_file(job.events),
            "live items": None if job.items is None else hash_file(job.items),
            "k": job.k,
            "engine": job.engine,
            "history_eligible": config.protocol.history_eligible,
        }
        if counted(job.model):
            made["popularity"] = config.baselines.popularity.model_dump(mode="json")
        elif generative(job.model):
            made["prompts"] = config.prompts.model_dump(mode="json")
            made["context"] = context_of(job.model, config)
            made["certified"] = config.prediction.certified
            made["node_budget"] = config.prediction.node_budget
            made["normalise"] = config.prediction.normalise
            made["precision"] = config.run.precision
        else:
            # What it was trained with is in its weights, but some settings act at prediction alone.
            own = [one for one in REGISTRY[job.model].sections if one.startswith("baselines.") or one == "prompts"]
            made["settings"] = {one: attrgetter(one)(config).model_dump(mode="json") for one in own}
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
        times = batch.column("timestamp").to_numpy(zero_copy_only=False).astype(np.int64)
        wrong = far_ahead(int(times.max(initial=0)))
        if wrong:
            raise DataError(
                f"{times.max()} {wrong}", where="questions, column 'timestamp'", expected="seconds since 1970 UTC"
            )
        return names, times


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

"""From a folder of shards to the predict-set store that the filter reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.artefacts import read_json
from conrec.errors import ArtefactError, ConfigError
from conrec.filtering.calibrating.threshold import read_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.stores.base import Origin, StoreMeta
from conrec.filtering.stores.files import HEADER
from conrec.filtering.stores.lmdb import PredictSetStore
from conrec.filtering.stores.opening import codebooks_of
from conrec.filtering.stores.writer import BulkWriter, SetBlock
from conrec.folders import held
from conrec.predicting.plan import Plan, read_plan, weights_hash
from conrec.predicting.shard_file import read_shard
from conrec.settings.outcome import PredictionConfig

__all__ = ["Stored", "store_of_shards"]

PREDICT_AGAIN = "Predict again with the run as it is, and if `conrec run` was stopped, let it finish first."


@dataclass(frozen=True, slots=True)
class Stored:
    """What `store_of_shards` wrote.

    Attributes:
        folder: of the store.
        meta: what the store says about itself.
        unanswered: questions of the shards without any item; those users are not stored.
        new: users of the shards that were not in the store before.
        renewed: users of the shards that were in it.
        kept: users that are in the store as they were before.
        gone: users of the store before who are no longer there.
        live: whether the shards are of live items only (``--items``).
    """

    folder: Path
    meta: StoreMeta
    unanswered: int
    new: int
    renewed: int
    kept: int
    gone: int
    live: bool

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        meta = self.meta
        before = [f"{self.new:,} new", f"{self.renewed:,} predicted anew", f"{self.kept:,} as before"]
        gone = f"; users of the store before who are no longer there: {self.gone:,}" if self.gone else ""
        none = [f"not stored: {self.unanswered:,} without any eligible item"] if self.unanswered else []
        live = ["note: these are sets of live items; the threshold was calibrated on lists of the whole catalogue"]
        written = f"written: {self.folder}, {meta.count:,} users ({', '.join(before)}), {meta.slots} items each{gone}"
        return [*none, *(live if self.live else []), written]


def store_of_shards(
    run_folder: Path, folder: Path, config: PredictionConfig, *, add: bool = False, replace: bool = False
) -> Stored:
    """Make the shards of a folder the predict sets of a run's filter.

    Args:
        run_folder: the run; its threshold of this row stays.
        folder: finished shards of `conrec predict`, each user once.
        config: for ``predict_set``, how many of each user's ranks are stored.
        add: keep the sets of users who are in the store and not in the shards.
        replace: let them go; without either, it is an error that there are such users.

    Raises:
        ArtefactError: shards are missing, damaged or made from something else, belong to another SID table or other
            weights than the threshold, or the row has no threshold; users would be lost.
        DataError: a user comes twice, at two times.
        ConfigError: fewer ranks were predicted than are stored, or both ``add`` and ``replace``.
        RunLockedError: another process works in this run.
    """
    if add and replace:
        raise ConfigError("both are given", where="--add and --replace", expected="one of them")
    plan = read_plan(folder)
    missing = plan.missing()
    if missing:
        raise ArtefactError(
            f"{len(missing)} of {plan.shards} shards are missing, the first is {plan.path(missing[0]).name}",
            where=str(folder),
            mend="Give the same `conrec predict` command again.",
        )
    size, ranks = config.predict_set, plan.made_from["k"]
    if ranks < size:
        raise ConfigError(
            f"{ranks} ranks were predicted",
            where=str(folder),
            expected=f"at least the {size} that the run stores (prediction.predict_set)",
        )
    # From reading the store before to replacing it: whoever came between would lose the users that he added.
    with held(run_folder, "Wait for it, and give the same command again."):
        return _store(run_folder, plan, size, add=add, replace=replace)


def _store(run_folder: Path, plan: Plan, size: int, *, add: bool, replace: bool) -> Stored:
    """`store_of_shards` for shards that are all there."""
    catalogue, made_from = FilterCatalogue.load(run_folder, grown=True), plan.made_from
    model = str(made_from["model"])
    _check_origin(run_folder, plan, model, catalogue)
    version = str(made_from["weights"])
    origin = Origin(model, version, catalogue.sid_hash, codebooks_of(run_folder), catalogue.sids.sizes)
    target = run_folder / "filter" / model
    old = None if replace and not _readable(target) else _before(target, catalogue, origin.codebook_hash)
    writer = BulkWriter(target, origin, slots=size)
    renewed = gone = 0
    for block in _blocks(plan, size, catalogue.sids.levels):
        writer.add(block)
        if old is not None:
            renewed += int(old.holds(block.user_ids.to_pylist()).sum())
    if old is not None:
        gone = len(old) - renewed
        if gone and not (add or replace):
            raise ArtefactError(
                f"{gone:,} of the {len(old):,} users of this store are not among the {writer.users:,} of {plan.folder}",
                where=str(target),
                expected="predict sets of all of them",
                mend="Give --add to keep the sets that they have, or --replace to let them go.",
            )
        if gone and add:
            _refuse_other_weights(old, version)
    keep = old if gone and add else None
    kept, gone = (gone, 0) if keep is not None else (0, gone)
    meta = writer.finish(keep=keep)
    if old is not None:
        old.close()
    live = made_from["live items"] is not None
    return Stored(target, meta, plan.questions - writer.users, writer.users - renewed, renewed, kept, gone, live)


def _check_origin(run_folder: Path, plan: Plan, model: str, catalogue: FilterCatalogue) -> None:
    """Refuse what was predicted with another SID table or other weights than the threshold was calibrated with.

    A table that the catalogue grew from is not another one: its codes name the same items.

    Raises:
        ArtefactError: it was, or the row has no threshold.
    """
    made_from = plan.made_from
    if made_from["semantic IDs"] not in (catalogue.sid_hash, *catalogue.earlier):
        raise ArtefactError(
            f"was predicted with the SID table {made_from['semantic IDs'][:12]}…",
            where=str(plan.folder),
            expected=f"the SID table of this run, {catalogue.sid_hash[:12]}…",
            mend=PREDICT_AGAIN,
        )
    read_threshold(run_folder, model, catalogue.sid_hash, catalogue.earlier)
    weights = {"weights of this run": weights_hash(run_folder, model)}
    manifest = run_folder / "filter" / f"{model}.manifest.json"
    if manifest.is_file():  # a run that was retrained and not finished still has the threshold of its earlier weights
        inputs = read_json(manifest)["inputs"]
        calibrated = inputs.get(f"models/{model}/model", inputs.get("data/events.parquet"))
        weights["weights that the threshold was calibrated with"] = calibrated
    for name, expected in weights.items():
        if made_from["weights"] != expected:
            raise ArtefactError(
                f"was predicted with the weights {made_from['weights'][:12]}…",
                where=str(plan.folder),
                expected=f"the {name}, {expected[:12]}…",
                mend=PREDICT_AGAIN,
            )


def _readable(folder: Path) -> bool:
    """Whether a store can be opened."""
    try:
        PredictSetStore.open(folder).close()
    except ArtefactError:
        return False
    return True


def _refuse_other_weights(old: PredictSetStore, version: str) -> None:
    """Refuse to keep sets of other weights than those of the new ones, for the store names one version for all.

    Raises:
        ArtefactError: they are of others.
    """
    before = old.meta.model_version
    if before and before != version:
        raise ArtefactError(
            f"the sets of this store were predicted with the weights {before[:12]}…",
            where=str(old.folder),
            expected=f"those of the new sets, {version[:12]}…, where some are kept",
            mend="Predict for all users, or give --replace to let the others go.",
        )


def _before(folder: Path, catalogue: FilterCatalogue, codebook_hash: str) -> PredictSetStore | None:
    """The store that is there.

    Raises:
        ArtefactError: it is damaged, or of another SID table or other codebooks.
    """
    if not (folder / HEADER).is_file():
        return None
    try:
        return PredictSetStore.open(folder, catalogue.sid_hash, catalogue.earlier, codebook_hash=codebook_hash)
    except ArtefactError as error:
        raise ArtefactError(
            f"the store that is there cannot be compared: {error.found}",
            where=error.where,
            expected=error.expected,
            mend="Give --replace to write over it.",
        ) from None


def _blocks(plan: Plan, size: int, levels: int) -> Iterator[SetBlock]:
    """The first ``size`` ranks of all shards, a block a shard."""
    for shard in range(plan.shards):
        table = pa.concat_tables(read_shard(plan, shard))
        table = table.filter(pc.less_equal(table["rank"], size))
        # Rank 1 opens the set of each question: they stand in the order of questions and ranks.
        opens = np.flatnonzero(table["rank"].to_numpy() == 1)
        user = np.cumsum(table["rank"].to_numpy() == 1) - 1
        place = table["rank"].to_numpy() - 1
        codes = np.full((len(opens), size, levels), -1, dtype=np.int32)
        codes[user, place] = np.asarray(pc.list_flatten(table["codes"])).reshape(-1, levels)
        scores = np.full((len(opens), size), -np.inf, dtype=np.float32)
        scores[user, place] = table["score"].to_numpy()
        names = table["user_id"].take(pa.array(opens)).combine_chunks()
        yield SetBlock(names, codes, scores, table["timestamp"].to_numpy()[opens])

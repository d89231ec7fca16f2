"""From a folder of shards to the predict-set store that the filter reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.arrays import Array
from conrec.artefacts import read_json
from conrec.errors import ArtefactError, ConfigError
from conrec.filtering.calibrating.threshold import read_threshold
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.stores.lmdb import HEADER, PredictSetStore, StoreMeta, write_store
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


@dataclass(frozen=True, slots=True)
class _Sets:
    """Predict sets of some users.

    Attributes:
        names: user IDs.
        codes: int32 [users, size, levels], -1 in an empty place.
        scores: float32 [users, size], -inf there.
    """

    names: list[str]
    codes: Array
    scores: Array


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
    size, made_from = config.predict_set, plan.made_from
    if made_from["k"] < size:
        raise ConfigError(
            f"{made_from['k']} ranks were predicted",
            where=str(folder),
            expected=f"at least the {size} that the run stores (prediction.predict_set)",
        )
    catalogue = FilterCatalogue.load(run_folder, grown=True)
    model = str(made_from["model"])
    _check_origin(run_folder, plan, model, catalogue)
    sets = _sets(plan, size, catalogue.sids.levels)
    target = run_folder / "filter" / model
    old = None if replace and not _readable(target) else _before(target, catalogue)
    renewed, kept, gone = 0, 0, 0
    if old is not None:
        with old:
            renewed = int(old.get_many(sets.names)[0].sum())
            gone = len(old) - renewed
            if gone and not (add or replace):
                raise ArtefactError(
                    f"{gone:,} of the {len(old):,} users of this store are not among the {len(sets.names):,} "
                    f"of {folder}",
                    where=str(target),
                    expected="predict sets of all of them",
                    mend="Give --add to keep the sets that they have, or --replace to let them go.",
                )
            if gone and add:
                sets, kept, gone = _joined(sets, old, size), gone, 0
    sid_size = catalogue.sids.codebook_size
    meta = write_store(
        target,
        sets.names,
        sets.codes,
        sets.scores,
        model=model,
        sid_hash=catalogue.sid_hash,
        codebook_size=sid_size,
    )
    asked = meta.count - kept
    return Stored(
        target, meta, plan.questions - asked, asked - renewed, renewed, kept, gone, made_from["live items"] is not None
    )


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


def _before(folder: Path, catalogue: FilterCatalogue) -> PredictSetStore | None:
    """The store that is there.

    Raises:
        ArtefactError: it is damaged, or of another SID table.
    """
    if not (folder / HEADER).is_file():
        return None
    try:
        return PredictSetStore.open(folder, catalogue.sid_hash, catalogue.earlier)
    except ArtefactError as error:
        raise ArtefactError(
            f"the store that is there cannot be compared: {error.found}",
            where=error.where,
            expected=error.expected,
            mend="Give --replace to write over it.",
        ) from None


def _sets(plan: Plan, size: int, levels: int) -> _Sets:
    """The first ``size`` ranks of all shards."""
    names: list[str] = []
    codes, scores = [np.empty((0, size, levels), dtype=np.int32)], [np.empty((0, size), dtype=np.float32)]
    for shard in range(plan.shards):
        table = pa.concat_tables(read_shard(plan, shard))
        table = table.filter(pc.less_equal(table["rank"], size))
        # Rank 1 opens the set of each question: they stand in the order of questions and ranks.
        opens = np.flatnonzero(table["rank"].to_numpy() == 1)
        user = np.cumsum(table["rank"].to_numpy() == 1) - 1
        place = table["rank"].to_numpy() - 1
        block = np.full((len(opens), size, levels), -1, dtype=np.int32)
        block[user, place] = np.asarray(pc.list_flatten(table["codes"])).reshape(-1, levels)
        score = np.full((len(opens), size), -np.inf, dtype=np.float32)
        score[user, place] = table["score"].to_numpy()
        names += table["user_id"].take(pa.array(opens)).to_pylist()
        codes.append(block)
        scores.append(score)
    return _Sets(names, np.concatenate(codes), np.concatenate(scores))


def _joined(sets: _Sets, old: PredictSetStore, size: int) -> _Sets:
    """With the users of an older store who are not among them."""
    known = set(sets.names)
    others = [name for name in old.user_ids() if name not in known]
    _, codes, scores = old.get_many(others)
    wide = max(0, size - old.meta.slots)
    codes = np.pad(codes[:, :size], ((0, 0), (0, wide), (0, 0)), constant_values=-1)
    scores = np.pad(scores[:, :size], ((0, 0), (0, wide)), constant_values=-np.inf)
    return _Sets([*sets.names, *others], np.concatenate([sets.codes, codes]), np.concatenate([sets.scores, scores]))

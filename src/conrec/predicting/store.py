"""From a folder of shards to the predict-set store that the filter reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conrec.artefacts import read_parquet
from conrec.errors import ArtefactError, ConfigError
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.store import StoreMeta, write_store
from conrec.filtering.threshold import read_threshold
from conrec.predicting.plan import PREDICT_SETS, Plan, read_plan
from conrec.settings.outcome import PredictionConfig

__all__ = ["store_of_shards"]


def store_of_shards(run_folder: Path, folder: Path, config: PredictionConfig) -> StoreMeta:
    """Make the shards of a folder the predict sets of a run's filter, in place of those that are there.

    Args:
        run_folder: the run; its threshold of this row stays.
        folder: finished shards of `conrec predict`, each user once.
        config: for ``predict_set``, how many of each user's ranks are stored.

    Returns:
        What ``RUN/filter/MODEL`` says about itself.

    Raises:
        ArtefactError: shards are missing or damaged, belong to another SID table, or the row has no threshold.
        DataError: a user comes twice, at two times.
        ConfigError: fewer ranks were predicted than are stored.
    """
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
    catalogue = FilterCatalogue.load(run_folder)
    if made_from["semantic IDs"] != catalogue.sid_hash:
        raise ArtefactError(
            f"was predicted with the SID table {made_from['semantic IDs'][:12]}…",
            where=str(folder),
            expected=f"the SID table of this run, {catalogue.sid_hash[:12]}…",
        )
    model = str(made_from["model"])
    read_threshold(run_folder, model, catalogue.sid_hash)
    names, codes, scores = _sets(plan, size)
    sid_size = catalogue.sids.codebook_size
    return write_store(
        run_folder / "filter" / model,
        names,
        codes,
        scores,
        model=model,
        sid_hash=catalogue.sid_hash,
        codebook_size=sid_size,
    )


def _sets(plan: Plan, size: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """User IDs, codes [users, size, 3] (-1: empty) and scores [users, size] of all shards."""
    names: list[str] = []
    codes, scores = [], []
    for shard in range(plan.shards):
        table = read_parquet(plan.path(shard), PREDICT_SETS)
        table = table.filter(pc.less_equal(table["rank"], size))
        # Rank 1 opens the set of each question: they stand in the order of questions and ranks.
        opens = np.flatnonzero(table["rank"].to_numpy() == 1)
        user = np.cumsum(table["rank"].to_numpy() == 1) - 1
        place = table["rank"].to_numpy() - 1
        block = np.full((len(opens), size, 3), -1, dtype=np.int32)
        block[user, place] = np.asarray(pc.list_flatten(table["codes"])).reshape(-1, 3)
        score = np.full((len(opens), size), -np.inf, dtype=np.float32)
        score[user, place] = table["score"].to_numpy()
        names += table["user_id"].take(pa.array(opens)).to_pylist()
        codes.append(block)
        scores.append(score)
    return names, np.concatenate(codes), np.concatenate(scores)

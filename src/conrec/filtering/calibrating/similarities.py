"""How near what came after an anchor is to the predict set of that anchor: what a threshold is chosen and judged by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conrec.arrays import Array, Ragged
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.predictions import read_predictions, why_unranked
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.stores.layout import stored_scores
from conrec.filtering.vectors.table import max_similarity
from conrec.filtering.weighing import Weighing
from conrec.logs.anchors import Anchors

__all__ = ["AnchorSimilarities", "Pairs", "anchor_similarities", "predict_sets", "split_similarities"]


@dataclass(frozen=True, slots=True)
class Pairs:
    """(anchor, item) pairs with their similarity.

    Attributes:
        similarity: float32 [pairs], of the item to the anchor's predict set; no NaN.
        anchor: int64 [pairs], row of the anchor.
        item: int32 [pairs], catalogue index.
    """

    similarity: Array
    anchor: Array
    item: Array

    def __len__(self) -> int:
        return len(self.similarity)

    def where(self, wanted: Array) -> Pairs:
        """The pairs at the given rows (int or bool)."""
        return Pairs(self.similarity[wanted], self.anchor[wanted], self.item[wanted])


@dataclass(frozen=True, slots=True)
class AnchorSimilarities:
    """Similarity of what an anchor's window held to its predict set.

    Pairs whose anchor has an empty predict set are left out: the filter keeps them whatever the threshold.

    Attributes:
        candidates: the candidates of the anchors, 20 each.
        positives: their future positives, what the user liked; dropped, they are false filters.
        negatives: their future negatives, what he disliked; dropped, they are rightly caught.
    """

    candidates: Pairs
    positives: Pairs
    negatives: Pairs


def anchor_similarities(
    catalogue: FilterCatalogue, predicted: Array, anchors: Anchors, weights: Array | None = None
) -> AnchorSimilarities:
    """Similarities of all pairs of some anchors.

    Args:
        catalogue: items and rebuilt embeddings.
        predicted: int32 [anchors, K], predict set of each anchor, -1 for none.
        anchors: with candidates, future positives and future negatives.
        weights: float64 [anchors, K], of each predicted item; None: 1.
    """
    row, place = np.nonzero(anchors.candidates >= 0)
    parts = []
    for anchor, items in (
        (row.astype(np.int64), anchors.candidates[row, place]),
        _pairs(anchors.future_positives),
        _pairs(anchors.future_negatives),
    ):
        similarity, _ = max_similarity(catalogue.table, predicted, anchor, items, weights)
        parts.append(Pairs(similarity, anchor, items).where(~np.isnan(similarity)))
    return AnchorSimilarities(*parts)


def split_similarities(
    run_folder: Path, model: str, data: RunData, catalogue: FilterCatalogue, config: Config, split: str
) -> tuple[Anchors, AnchorSimilarities]:
    """The anchors of a split, and their similarities to a model's predict sets.

    Args:
        run_folder: the run, with ``predictions/MODEL.parquet``.
        model: name of the row.
        data: log and anchors of the run.
        catalogue: its items.
        config: for ``prediction.predict_set``, ``filter.rank_weight`` and ``filter.score_weight``.
        split: "validation" or "test".

    Raises:
        ArtefactError: the predictions are missing, damaged, or lack an anchor.
    """
    anchors = data.anchors.of_split(split)
    predicted, weights = predict_sets(run_folder, model, data, config, anchors)
    return anchors, anchor_similarities(catalogue, predicted, anchors, weights)


def predict_sets(
    run_folder: Path, model: str, data: RunData, config: Config, anchors: Anchors
) -> tuple[Array, Array | None]:
    """The first items of a model's predictions for some anchors, and what each counts.

    Predictions are weighted by rank and score as the filter weighs them, which reads scores from a store that rounds
    them; they are fresh, so that none has aged.

    Args:
        run_folder: the run, with ``predictions/MODEL.parquet``.
        model: name of the row.
        data: log and anchors of the run.
        config: for ``prediction.predict_set``, ``filter.rank_weight`` and ``filter.score_weight``.
        anchors: of the validation or test period.

    Returns:
        int32 [anchors, K], -1 for none; float64 [anchors, K], None where all count 1.

    Raises:
        ArtefactError: the predictions are missing, damaged, or lack an anchor, or the model ranks nothing.
    """
    path = run_folder / "predictions" / f"{model}.parquet"
    if (why := why_unranked(path)) is not None:
        raise ArtefactError(
            f"holds no rankings ({why})", where=str(path), mend=f"A filter needs them: leave {model!r} out."
        )
    ranking = read_predictions(path, anchors, data.log.item_ids, data.anchors.anchor_id)
    first = slice(config.prediction.predict_set)
    weighing = Weighing(config.filter.rank_weight, config.filter.score_weight)
    scores = stored_scores(ranking.score[:, first]) if weighing.score_weight else ranking.score[:, first]
    weights = weighing.weights(scores, anchors.timestamp)
    return ranking.item[:, first], weights


def _pairs(rows: Ragged) -> tuple[Array, Array]:
    """Row (int64) and value of each entry of a ragged array."""
    return np.repeat(np.arange(len(rows)), rows.lengths), rows.values

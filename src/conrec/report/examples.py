"""A few users: what they had disliked and liked, what was predicted, what came, and what the filter would drop."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conrec.arrays import Array
from conrec.filtering.calibrating.similarities import predict_sets
from conrec.filtering.calibrating.threshold import above
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.vectors.table import max_similarity
from conrec.logs.anchors import Anchors
from conrec.protocol import NEGATIVE, POSITIVE
from conrec.report.content import Cell, Example, Note, Section, Table, absent, date, number, titles
from conrec.report.source import RunSource
from conrec.rows import REFERENCE
from conrec.seeds import generator

__all__ = ["examples"]

USERS = 5
LAST = 8
"""Items shown of each side of a history."""


def examples(source: RunSource) -> Section:
    """Some test anchors of different users, drawn by the run's seed and not chosen by result."""
    lead = f"{USERS} test anchors of different users, drawn by the run's seed and not by how well they went."
    model = REFERENCE
    path = source.folder / "predictions" / f"{model}.parquet"
    if not path.is_file():
        note = absent("What CoNRec predicts", f"predictions/{model}.parquet")
        return Section("examples", "Examples", lead, (note,))
    anchors = _drawn(source)
    if not len(anchors):
        return Section("examples", "Examples", lead, (Note("There are no test anchors.", "quiet"),))
    predicted, weights = predict_sets(source.folder, model, source.data, source.config, anchors)
    weights = np.ones(predicted.shape) if weights is None else weights
    catalogue = _catalogue(source.folder)
    one_filter = source.filters().get(model)
    threshold = None if one_filter is None else one_filter["threshold"]
    intro = Note(_threshold_words(model, catalogue is not None, one_filter is not None, threshold), "quiet")
    shown = [
        _example(source, anchors, row, predicted[row], weights[row], catalogue, threshold)
        for row in range(len(anchors))
    ]
    return Section("examples", "Examples", lead, (intro, *shown))


def _drawn(source: RunSource) -> Anchors:
    """One test anchor of each of a few users, in order of time."""
    test = source.data.anchors.of_split("test")
    random = generator(source.config.run.seed, "report examples")
    users = np.unique(test.user)
    users = np.sort(random.choice(users, size=min(USERS, len(users)), replace=False))
    rows = [int(random.choice(np.flatnonzero(test.user == user))) for user in users]
    return test.select(np.sort(np.asarray(rows, dtype=np.int64)))


def _catalogue(folder: Path) -> FilterCatalogue | None:
    """The rebuilt embeddings, where the run has them."""
    here = all((folder / "items" / name).is_file() for name in ("semantic_ids.parquet", "rebuilt.safetensors"))
    return FilterCatalogue.load(folder) if here else None


def _threshold_words(model: str, rebuilt: bool, calibrated: bool, threshold: float | None) -> str:
    if not rebuilt:
        return "Similarities are not shown: this run has no items/rebuilt.safetensors."
    if not calibrated:
        return f"No candidate is dropped: this run has no filter/{model}.json."
    if threshold is None or threshold >= 1:
        return f"No candidate is dropped: the filter of {model} keeps everything."
    return (
        f"Candidates are dropped where the similarity to the nearest item of the predict set is above {threshold:.4f}."
    )


def _example(
    source: RunSource,
    anchors: Anchors,
    row: int,
    predicted: Array,
    weights: Array,
    catalogue: FilterCatalogue | None,
    threshold: float | None,
) -> Example:
    log, names = source.data.log, source.titles
    user, timestamp = int(anchors.user[row]), int(anchors.timestamp[row])
    events = log.history(user, timestamp)[::-1]
    sides = {sign: log.item[events[log.feedback[events] == sign]][:LAST] for sign in (NEGATIVE, POSITIVE)}
    negatives, positives = anchors.future_negatives[row], anchors.future_positives[row]
    guess, weights = predicted[predicted >= 0], weights[predicted >= 0]
    count = f"{len(events):,} events before, {anchors.negative_history[row]:,} of them negative"
    return Example(
        title=f"User {log.user_ids[user]} on {date(timestamp)}: {count}",
        liked=titles(sides[POSITIVE], names),
        disliked=titles(sides[NEGATIVE], names),
        predicted=tuple((names[int(item)], bool(np.isin(item, negatives))) for item in guess),
        came_disliked=tuple((names[int(item)], bool(np.isin(item, guess))) for item in negatives),
        came_liked=titles(positives, names),
        candidates=_candidates(
            source, anchors.candidates[row], int(anchors.next_item[row]), guess, weights, catalogue, threshold
        ),
    )


def _candidates(
    source: RunSource,
    candidates: Array,
    answer: int,
    guess: Array,
    weights: Array,
    catalogue: FilterCatalogue | None,
    threshold: float | None,
) -> Table:
    """The candidates, nearest to the predict set first."""
    names = source.titles
    candidates = candidates[candidates >= 0]
    similarity = np.full(len(candidates), np.nan, dtype=np.float32)
    nearest = np.full(len(candidates), -1, dtype=np.int32)
    if catalogue is not None:
        sets = np.zeros(len(candidates), dtype=np.int64)
        similarity, nearest = max_similarity(catalogue.table, guess[None, :], sets, candidates, weights[None, :])
    falls = above(similarity, threshold)
    rows = []
    for place in np.argsort(-np.nan_to_num(similarity, nan=-2.0), kind="stable"):
        item, near, value = int(candidates[place]), int(nearest[place]), float(similarity[place])
        rows.append(
            (
                Cell(names[item], "the item that was disliked next" if item == answer else "", strong=item == answer),
                Cell("dropped" if falls[place] else "kept", tone="bad" if falls[place] else ""),
                Cell(number(None if np.isnan(value) else value)),
                Cell(names[near] if near >= 0 else "–"),
            )
        )
    caption = f"The {len(candidates)} candidates of this anchor, the most similar to the predict set first."
    return Table(caption, ("Candidate", "Filter", "Similarity", "Nearest prediction"), tuple(rows), words=True)

"""The methods that are compared: the rows of a run by similarity to their predict sets, and the rules of platforms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from conrec.arrays import Array, Ragged
from conrec.artefacts import read_parquet, read_tensors
from conrec.baselines.simple.popularity import LivePopularity, MostDisliked
from conrec.config import Config
from conrec.errors import ArtefactError, did_you_mean
from conrec.evaluation.evaluate import RunData
from conrec.evaluation.studies import category_groups, code_groups
from conrec.filtering.analysis.pairs import Pairs
from conrec.filtering.analysis.rules import COSINE_FLOOR, BlockGroup, Counted, NearDislikes, Rule, Shuffled
from conrec.filtering.calibrating.similarities import predict_sets
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.vectors.table import ItemTable, max_similarity
from conrec.items.diagnosis.diagnostics import unit_rows
from conrec.logs.anchors import Anchors
from conrec.rows import in_order

__all__ = ["SHOP", "Judged", "Method", "attribute_groups", "known_models", "methods_of", "platform_rules"]

SHOP = "shop"
"""The attribute that platforms block by beside the category."""
GRUMBLERS = "who dislikes much"
"""The rule that looks at the user alone: what it catches, no method needs to know anything of items for."""
EMBEDDINGS = "embeddings.safetensors"
Measure: TypeAlias = Literal["count", "share", "rate"]
MEASURES: Mapping[Measure, str] = {
    "count": "after n past dislikes of it",
    "share": "by its share of the user's past dislikes",
    "rate": "by its dislikes among the user's likes and dislikes of it",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """The anchors of a split with the pairs that are judged on them."""

    anchors: Anchors
    pairs: Pairs

    @classmethod
    def of(cls, data: RunData, split: str) -> Judged:
        """The anchors of "validation" or "test"."""
        anchors = data.anchors.of_split(split)
        return cls(anchors, Pairs.of(anchors))


@dataclass(frozen=True, slots=True)
class Method:
    """A method with its score of every pair.

    Attributes:
        name: what tables call it.
        kind: a row of the run, or a rule.
        says: what it drops, a clause.
        floor: score of what it knows nothing of, which no threshold drops.
        validation, test: float32 [pairs] of each split.
    """

    name: str
    kind: Literal["model", "rule"]
    says: str
    floor: float
    validation: Array
    test: Array


def methods_of(
    run_folder: Path,
    models: Sequence[str],
    rules: Iterable[Rule],
    data: RunData,
    catalogue: FilterCatalogue,
    config: Config,
    validation: Judged,
    test: Judged,
) -> list[Method]:
    """Score all pairs by every method: the models in the order given, then the rules.

    Raises:
        ArtefactError: a model has no predictions, or they are damaged or lack an anchor.
    """
    known = known_models(run_folder, config)
    found = []
    for model in dict.fromkeys(models):
        if model not in known:
            raise ArtefactError(
                f"there are no predictions of a model {model!r}",
                where=str(run_folder / "predictions"),
                mend=did_you_mean(model, known) or "Let the run reach its predictions first.",
            )
        scores = []
        for judged in (validation, test):
            predicted, weights = predict_sets(run_folder, model, data, config, judged.anchors)
            pairs = judged.pairs
            similarity, _ = max_similarity(catalogue.table, predicted, pairs.anchor, pairs.item, weights)
            scores.append(np.where(np.isnan(similarity), np.float32(COSINE_FLOOR), similarity))
        found.append(Method(model, "model", "similarity to the model's predict set", COSINE_FLOOR, *scores))
    for rule in rules:
        both = (rule.scores(data.log, judged.anchors, judged.pairs) for judged in (validation, test))
        found.append(Method(rule.name, "rule", rule.says, rule.floor, *both))
    return found


def known_models(run_folder: Path, config: Config) -> list[str]:
    """Models of a run that have predictions, in the order of the table."""
    files = (run_folder / "predictions").glob("*.parquet")
    return in_order((one.stem for one in files if not one.name.startswith(".")), config)


def platform_rules(
    run_folder: Path, data: RunData, catalogue: FilterCatalogue, config: Config, attributes: Sequence[str] = (SHOP,)
) -> tuple[list[Rule], dict[str, str]]:
    """The rules that a run's files can serve, and why others are missing.

    Args:
        run_folder: for ``data/items.parquet`` and ``items/embeddings.safetensors``.
        data: log and periods.
        catalogue: codes and rebuilt embeddings.
        config: for ``popularity`` and ``run.seed``.
        attributes: columns of ``data/items.parquet`` by which a platform would block, beside the category.

    Returns:
        The rules, and ``{NAME: why it is missing}``.

    Raises:
        ArtefactError: a file is damaged or is of another catalogue.
    """
    items = read_parquet(run_folder / "data" / "items.parquet")
    rules: list[Rule] = []
    missing: dict[str, str] = {}
    for attribute in dict.fromkeys(["category", *attributes]):
        groups, why = attribute_groups(items, attribute)
        if groups is None:
            missing[f"block the {attribute}"] = why
        else:
            rules += _blocks(attribute, groups)
    rules += _blocks("first code", code_groups(catalogue.sids.codes))[:1]
    everything = Ragged(np.arange(len(catalogue) + 1, dtype=np.int64), np.zeros(len(catalogue), dtype=np.int32))
    rules.append(BlockGroup(GRUMBLERS, "the user's share of dislikes, whatever the item", everything, "rate"))
    rules.append(
        NearDislikes("near past dislikes", "cosine of rebuilt embeddings to any past dislike", catalogue.table)
    )
    original = _original(run_folder, data)
    if original is None:
        missing["near past dislikes, original"] = f"the run has no items/{EMBEDDINGS}"
    else:
        rules.append(
            NearDislikes("near past dislikes, original", "the same by the embeddings before quantising", original)
        )
    training = data.log.before(data.periods.validation)
    rules += [
        Counted("most disliked items", "number of dislikes in the training period", MostDisliked.count(training)),
        Counted(
            "disliked lately",
            f"everybody's dislikes of the last {config.baselines.popularity.days} days, halved every "
            f"{config.baselines.popularity.half_life_days:g}",
            LivePopularity(config.baselines.popularity),
        ),
        Shuffled("random", "at random", config.run.seed),
    ]
    return rules, missing


def attribute_groups(items: pa.Table, attribute: str) -> tuple[Ragged | None, str]:
    """The values of an attribute of each item as numbers, one or several an item; or None and why there are none.

    Args:
        items: ``data/items.parquet``, or any table in the order of the catalogue.
        attribute: a column of text, whole numbers, or lists of them.
    """
    if attribute not in items.column_names:
        return None, f"data/items.parquet has no column {attribute!r}; it has {', '.join(items.column_names)}"
    column = items[attribute].to_pylist()
    values = [one if isinstance(one, list) else [one] for one in column]
    named: list[list[str] | None] = [
        [str(value) for value in row or () if value is not None and str(value).strip()] for row in values
    ]
    groups = category_groups(named)
    return groups, "" if groups is not None else f"no item has a value in the column {attribute!r}"


def _blocks(attribute: str, groups: Ragged) -> list[Rule]:
    name = f"block the {attribute}"
    return [
        BlockGroup(name if measure == "count" else f"{name}, by {measure}", f"{attribute}, {says}", groups, measure)
        for measure, says in MEASURES.items()
    ]


def _original(run_folder: Path, data: RunData) -> ItemTable | None:
    """The embeddings that were quantised as unit rows, less the mean of the training period's items."""
    path = run_folder / "items" / EMBEDDINGS
    if not path.is_file():
        return None
    tensors: dict[str, Any] = read_tensors(path)
    rows = tensors.get("embedding")
    if rows is None or rows.ndim != 2 or len(rows) != data.log.n_items:
        raise ArtefactError(
            f"holds { ({name: one.shape for name, one in tensors.items()}) }",
            where=str(path),
            expected=f"'embedding', float32 [{data.log.n_items}, d]",
        )
    trained = np.unique(data.log.before(data.periods.validation).item)
    centred = rows.astype(np.float32) - (rows[trained].mean(axis=0) if len(trained) else np.float32(0))
    return ItemTable.build(unit_rows(centred))

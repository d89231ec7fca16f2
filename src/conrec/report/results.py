"""The results: the table, differences against CoNRec, anchors without negative history, ablation, alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conrec.evaluation.predictions import why_unranked
from conrec.report.content import Block, Cell, Note, Row, Section, Table, Tone, absent, figure_cell, integer, number
from conrec.report.plots import interval_panels
from conrec.report.source import RunSource
from conrec.rows import REFERENCE, conrec_rows, row_label
from conrec.tables import metric_columns

__all__ = ["ablation", "alignment", "no_negative_history", "results"]

WITHOUT = "/no_negative_history"
ITEM_ONLY = "items alone"
"""Marks rules that answer a four-way choice from statistics of the items."""


def metrics_of(source: RunSource) -> list[tuple[str, str]]:
    """The five metrics of the table as (key, heading)."""
    columns = metric_columns(source.config.evaluation.top_k)
    return [(key, heading[:1].upper() + heading[1:]) for key, heading in columns]


def results(source: RunSource) -> Section:
    """All rows and metrics, drawn as well, and the differences against CoNRec."""
    keys = metrics_of(source)
    k = source.config.evaluation.top_k
    caption = f"All rows over test anchors; {source.how}. The best of a column is bold. {source.asked}"
    blocks: list[Block] = [
        _table(source, source.models, keys, caption),
        _panels(source, source.models, keys, f"The same figures drawn. {source.how.capitalize()}."),
        Note(
            f"HR@{k}: the next disliked item is among the {k} predicted. FHR@{k}: at least one item disliked within "
            f"{source.config.protocol.horizon_days} days is. LUF@{k}: FHR@{k} of users with few negatives. LIF@{k}: "
            f"FHR@{k} on items with few negatives. Candidate accuracy: the disliked item has the highest score among "
            "20 candidates of its day; guessing gives 0.05.",
            "quiet",
        ),
        *_unranked(source),
        *_differences(source, keys),
    ]
    return Section(
        "results", "Results", "Higher is better everywhere. Rows that win over ours are shown too.", tuple(blocks)
    )


def no_negative_history(source: RunSource) -> Section:
    """The same table over anchors whose history holds no negative."""
    keys = [(key + WITHOUT, heading) for key, heading in metrics_of(source)]
    lead = "Users who never disliked anything before: the paper names them as the case where it fails."
    models = [one for one in source.models if any(key in source.metrics[one] for key, _ in keys)]
    if not models:
        note = Note("The test period has no anchors without negative history.", "quiet")
        return Section("no-history", "Anchors without negative history", lead, (note,))
    caption = f"Over test anchors whose history holds no negative; {source.how}. The best of a column is bold."
    return Section("no-history", "Anchors without negative history", lead, (_table(source, models, keys, caption),))


def ablation(source: RunSource) -> Section:
    """CoNRec after each of its stages."""
    lead = "CoNRec after each of its stages; each row adds a stage to the one above, better or worse."
    stages = [(one, row_label(one, source.config)) for one in conrec_rows(source.config) if one in source.metrics]
    if len(stages) < 2:
        note = Note("This run holds no stages of CoNRec to compare.", "quiet")
        return Section("ablation", "Ablation of the stages", lead, (note,))
    keys = metrics_of(source)
    names = dict(stages)
    models = [model for model, _ in stages]
    caption = f"Over test anchors; {source.how}. The best of a column is bold. {source.asked}"
    blocks = (
        _table(source, models, keys, caption, names),
        _panels(source, models, keys, f"The ablation drawn. {source.how.capitalize()}.", names),
    )
    return Section("ablation", "Ablation of the stages", lead, blocks)


def alignment(source: RunSource) -> Section:
    """Accuracy on held-out four-way choices after each stage."""
    lead = (
        "Which of four items did the user dislike? Asked without any history, on choices that were held "
        "out; a stage that forgets the task falls back towards chance."
    )
    found = source.optional("results", "alignment.json")
    models: dict[str, Any] = found.get("models", {}) if isinstance(found, dict) else {}
    if not models:
        note = absent("The accuracy on four-way choices", "results/alignment.json")
        return Section("alignment", "Alignment", lead, (note,))
    stages = conrec_rows(source.config)
    order = [one for one in stages if one in models] + [one for one in models if one not in stages]
    rules = {str(name): one for name, one in (found.get("item_only") or {}).items() if _best([one])}
    best = _best([*(models[one] for one in order), *rules.values()])
    chance, choices = float(found.get("chance", 0.25)), found.get("choices")
    rows = [(Cell(one), figure_cell(models[one], strong=models[one] is best)) for one in order]
    rows += [(Cell(name, ITEM_ONLY), figure_cell(one, strong=one is best)) for name, one in rules.items()]
    count = f"{integer(choices)} held-out choices" if isinstance(choices, int) else "held-out choices"
    caption = f"Share of right answers among {count}, with 95 % intervals; chance is {chance:g}."
    if rules:
        caption += (
            f" Rows marked “{ITEM_ONLY}” answer the same choices from statistics of the items, without any model or "
            "user: what a model has above them is what it learned beyond them."
        )
    lines = {f"chance, {chance:g}": chance} | {
        f"{name} ({ITEM_ONLY}), {number(one['value'], 3)}": float(one["value"]) for name, one in rules.items()
    }
    blocks = (
        Table(caption, ("After", "Accuracy"), tuple(rows)),
        interval_panels(
            {"Alignment accuracy": models},
            order,
            REFERENCE,
            "Alignment accuracy after each stage, with intervals; vertical lines: " + "; ".join(lines) + ".",
            "The same drawn; the vertical lines are " + "; ".join(lines) + ".",
            references=lines,
        ),
    )
    return Section("alignment", "Alignment", lead, blocks)


def _best(figures: Sequence[Any]) -> Any:
    """The figure with the highest value, the first of several, None without any."""
    known = [one for one in figures if isinstance(one, dict) and one.get("value") is not None]
    return max(known, key=lambda one: float(one["value"])) if known else None


def _table(
    source: RunSource,
    models: Sequence[str],
    keys: Sequence[tuple[str, str]],
    caption: str,
    names: dict[str, str] | None = None,
) -> Table:
    """Models by metrics; the number of anchors stands in the heading where all models have the same."""
    columns, best, count_in_cell = [], [], []
    for key, heading in keys:
        figures = [source.metrics[model].get(key) for model in models]
        counts = {one.get("anchors") for one in figures if one is not None}
        same = counts.pop() if len(counts) == 1 else None
        columns.append(f"{heading}\n{integer(same)} anchors" if isinstance(same, int) else heading)
        count_in_cell.append(same is None)
        top = _best(figures)
        # Equal to the last printed digit is equal: all of them are bold.
        best.append(None if top is None else number(top["value"]))
    rows: list[Row] = []
    for model in models:
        cells = [Cell((names or {}).get(model, model), model if names else "")]
        for place, (key, _) in enumerate(keys):
            one = source.metrics[model].get(key)
            count = f"{one.get('anchors')} anchors" if one is not None and count_in_cell[place] else ""
            strong = one is not None and number(one.get("value")) == best[place]
            cells.append(figure_cell(one, strong=strong, count=count))
        rows.append(tuple(cells))
    return Table(caption, ("Method", *columns), tuple(rows))


def _panels(
    source: RunSource,
    models: Sequence[str],
    keys: Sequence[tuple[str, str]],
    caption: str,
    names: dict[str, str] | None = None,
) -> Block:
    label = {model: (names or {}).get(model, model) for model in models}
    panels = {
        heading: {label[model]: source.metrics[model][key] for model in models if key in source.metrics[model]}
        for key, heading in keys
        if any(key in source.metrics[model] for model in models)
    }
    if not panels:
        return Note("None of the metrics of the table could be computed.", "quiet")
    alt = "Points with 95 % intervals of each method, one panel a metric; the values are those of the table above."
    return interval_panels(panels, list(label.values()), label.get(REFERENCE, ""), alt, caption)


def _unranked(source: RunSource) -> list[Block]:
    """Why some rows have no figures of rankings."""
    files = {model: source.folder / "predictions" / f"{model}.parquet" for model in source.models}
    reasons = {model: why for model, path in files.items() if (why := why_unranked(path)) is not None}
    return [Note(f"{model} scores candidates alone: {why}.", "quiet") for model, why in reasons.items()]


def _differences(source: RunSource, keys: Sequence[tuple[str, str]]) -> list[Block]:
    """Each row less CoNRec, paired over users."""
    comparisons = source.optional("results", "comparisons.json")
    against = comparisons.get(REFERENCE, {}) if isinstance(comparisons, dict) else {}
    models = [one for one in source.models if one in against]
    if not models:
        return [absent(f"The paired differences against {REFERENCE}", "results/comparisons.json")]
    rows = tuple((Cell(model), *(_difference(against[model].get(key)) for key, _ in keys)) for model in models)
    caption = (
        f"Each row less {REFERENCE}, paired over users: positive means that the row is better than {REFERENCE}. "
        f"“Better” and “worse” where the interval does not hold 0; {source.how}."
    )
    return [Table(caption, ("Method", *(heading for _, heading in keys)), rows)]


def _difference(one: Any) -> Cell:
    if not isinstance(one, dict) or one.get("difference") is None:
        return Cell("–", tone="quiet")
    value, low, high = one["difference"], one["low"], one["high"]
    tone: Tone = "good" if low > 0 else "bad" if high < 0 else ""
    word = {"good": " better", "bad": " worse"}.get(tone, "")
    sign = "+" if value > 0 else ""
    return Cell(f"{sign}{number(value)}{word}", f"{number(low)} to {number(high)}", tone=tone)

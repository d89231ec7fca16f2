"""How the models learned: rewards of the GRPO stages in front, then every curve of every model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from conrec.config import Config, GrpoConfig
from conrec.report.content import Block, Cell, Section, Table, absent, cell, integer, number
from conrec.report.plots import curve_grid
from conrec.report.source import RunSource

__all__ = ["reward_in_words", "training"]

REWARD = "validation_reward"
EXPLAINED = {
    "flat_groups": "share of groups whose {group} rewards are all but equal, so that they have no advantages",
    "distinct_first_codes": "distinct first codes in a group of {group} rollouts, mean",
    "distinct_items": "distinct items in a group of {group} rollouts, mean; it falls where the policy collapses",
    "items_in_lists": "distinct items in the top {k} of the watched validation dislikes, in that context",
    "kl_weight": "beta, the weight of KL, which grew where the watched hit rate fell",
}
"""Series whose name does not say what it is; in front of a space, where a context follows."""


def training(source: RunSource) -> Section:
    """Learning curves of loss and reward."""
    lead = "Every series that a model wrote while it learned, over its training steps, unsmoothed where it is short."
    curves = source.curves()
    if not curves:
        return Section(
            "training",
            "Learning curves",
            lead,
            (absent("What the models wrote while learning", "models/*/curve.json"),),
        )
    blocks: list[Block] = []
    rewards = {model: series[REWARD] for model, series in curves.items() if REWARD in series}
    if rewards:
        blocks += [_reward_table(rewards, source), _reward_figure(rewards, source)]
    for model, series in curves.items():
        steps = int(max(points[-1][0] for points in series.values()))
        listing = ", ".join(
            f"{name} from {number(points[0][1])} to {number(points[-1][1])}" for name, points in series.items()
        )
        blocks.append(
            curve_grid(
                series,
                f"Learning curves of {model}: {listing}.",
                f"{steps:,} steps, seed {source.config.run.seed}. Where a series has more than 60 points, "
                "the faint line is the series and the strong one its running mean over 4 % of the points."
                + _explained(series, source.config)
                + _measured_on(source, [model] if REWARD in series else []),
                title=model,
            )
        )
    return Section("training", "Learning curves", lead, tuple(blocks))


def _reward_table(rewards: dict[str, list[tuple[float, float]]], source: RunSource) -> Table:
    rows = []
    for model, points in rewards.items():
        values = [value for _, value in points]
        change = values[-1] - values[0]
        word = "rises" if change > 0 else "falls" if change < 0 else "stays"
        sign = "+" if change > 0 else ""
        rows.append(
            (
                Cell(model),
                cell(len(values)),
                Cell(number(values[0])),
                Cell(number(values[-1])),
                Cell(f"{sign}{number(change)}", word, tone="good" if change > 0 else "bad" if change < 0 else ""),
                Cell(number(max(values))),
            )
        )
    return Table(
        f"Mean reward on validation anchors over each GRPO stage. The reward is {reward_in_words(source.config.grpo)}.",
        ("Stage", "Measured", "First", "Last", "Change", "Highest"),
        tuple(rows),
    )


def reward_in_words(config: GrpoConfig) -> str:
    """What the reward of a run is, in words."""
    cut = f", each counted where it exceeds {config.reward_cutoff:g}" if config.reward.endswith("_cut") else ""
    near = "the similarity to what the user will dislike"
    rebuilt = "on embeddings rebuilt from the codebooks"
    words = {
        "prefix": "1 for three codes in common with what the user will dislike, 0.1 for two and 0.01 for one",
        "negatives": f"{near}, {rebuilt}",
        "penalised": f"{near} less the weighted similarity to what he will like, {rebuilt}",
    }[config.reward.removesuffix("_cut")]
    hubs = ", similarities less each item's mean similarity" if config.hub_corrected else ""
    gain = f", and {config.coverage:g} times what an item adds to its group's coverage" if config.coverage else ""
    return words + cut + hubs + gain


def _explained(series: Iterable[str], config: Config) -> str:
    """What the series with a terse name are; a sentence each."""
    names = dict.fromkeys(name.partition(" ")[0] for name in series)
    given = {"group": config.grpo.group_size, "k": config.evaluation.top_k}
    return "".join(f" {name}: {EXPLAINED[name].format(**given)}." for name in names if name in EXPLAINED)


def _measured_on(source: RunSource, models: Sequence[str]) -> str:
    """On how many contexts the validation reward was measured; empty where no model says so."""
    counts = {one: source.notes(one).get("validation_samples") for one in models}
    known = {one: count for one, count in counts.items() if isinstance(count, int)}
    if not known:
        return ""
    distinct = set(known.values())
    if len(distinct) == 1 and len(known) == len(models):
        each = f"n = {integer(distinct.pop())}"
    else:
        each = ", ".join(f"{one} n = {integer(count)}" for one, count in known.items())
    return f" The validation reward is a mean over contexts of the validation period: {each}."


def _reward_figure(rewards: dict[str, list[tuple[float, float]]], source: RunSource) -> Block:
    listing = "; ".join(
        f"{model} from {number(points[0][1])} to {number(points[-1][1])}" for model, points in rewards.items()
    )
    return curve_grid(
        rewards,
        f"Validation reward of the GRPO stages: {listing}.",
        "Validation reward over each GRPO stage, first and last value written beside their points; seed "
        f"{source.config.run.seed}. The panels have axes of their own: a stage may show another context than the one "
        f"before it, so levels do not compare.{_measured_on(source, list(rewards))}",
        mark_ends=True,
    )

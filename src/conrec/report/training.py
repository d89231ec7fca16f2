"""How the models learned: rewards of the GRPO stages in front, then every curve of every model."""

from __future__ import annotations

from conrec.report.content import Block, Cell, Section, Table, absent, cell, number
from conrec.report.plots import curve_grid
from conrec.report.source import RunSource

__all__ = ["training"]

REWARD = "validation_reward"


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
        blocks += [_reward_table(rewards), _reward_figure(rewards, source.config.run.seed)]
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
                "the faint line is the series and the strong one its running mean over 4 % of the points.",
                title=model,
            )
        )
    return Section("training", "Learning curves", lead, tuple(blocks))


def _reward_table(rewards: dict[str, list[tuple[float, float]]]) -> Table:
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
        "Mean reward on validation anchors over each GRPO stage. The reward is the similarity to what the user will "
        "dislike less the weighted similarity to what he will like, on embeddings rebuilt from the codebooks.",
        ("Stage", "Measured", "First", "Last", "Change", "Highest"),
        tuple(rows),
    )


def _reward_figure(rewards: dict[str, list[tuple[float, float]]], seed: int) -> Block:
    listing = "; ".join(
        f"{model} from {number(points[0][1])} to {number(points[-1][1])}" for model, points in rewards.items()
    )
    return curve_grid(
        rewards,
        f"Validation reward of the GRPO stages: {listing}.",
        f"Validation reward over each GRPO stage, first and last value written beside their points; seed {seed}. "
        "The panels have axes of their own: each stage shows another context, so levels do not compare.",
        mark_ends=True,
    )

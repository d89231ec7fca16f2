"""The arms of the training study: which settings each changes, and the tables that they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARMS", "FORGETTING", "GROUPS", "OURS", "Arm", "Group", "Line"]

OURS = "conrec"
"""The chain as it is: reward (c), three stages, GTS of seven days."""
CONTEXTS = ("recent", "negative", "both")
SAMPLES = 1280
"""Contexts of a stage; schedules with fewer stages have as many contexts in all."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant of the chain.

    Attributes:
        settings: by section, what differs.
        upto: last row that is trained.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    upto: str = "conrec"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table: a row of an arm.

    Attributes:
        label: what it is called.
        arm, row: what it shows.
        seeds: the only ones that count; None: all that were run.
    """

    label: str
    arm: str
    row: str = "conrec"
    seeds: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A table.

    Attributes:
        name: of its picture.
        title: above it.
        lines: in order.
        reference: line that the others are compared with.
    """

    name: str
    title: str
    lines: Sequence[Line]
    reference: Line


def _grpo(**settings: Any) -> Arm:
    return Arm({"grpo": settings})


def _stages(*contexts: str, kl_weight: float = 0.5) -> list[dict[str, Any]]:
    """A schedule over as many contexts in all as the default has."""
    each = len(CONTEXTS) * SAMPLES // len(contexts)
    return [{"context": one, "samples": each, "kl_weight": kl_weight} for one in contexts]


HORIZONS = (1, 3, 14, 31)
PENALTIES = (0.25, 1.0)
KL_WEIGHTS = (0.0, 0.1, 2.0)
GROUP_SIZES = (4, 8, 32)
RANKS = (4, 16, 64)
PLAIN = {"stages": _stages("both"), "targets": "next", "reward": "prefix", "clean": False, "std_floor": 0.0001}
"""GRPO as generative recommenders have it: one stage, rewarded for hitting the next item's codes. Those rewards spread
by 0.02 in a group: the default's floor of 0.05 would all but switch them off."""

ARMS: Mapping[str, Arm] = {
    OURS: Arm(),
    "no-alignment": Arm({"alignment": {"samples": 0}}, "conrec-sft"),
    "reward-next": _grpo(targets="next", reward="negatives"),
    "reward-a": _grpo(reward="negatives"),
    "plain-grpo": _grpo(**PLAIN),
    "reward-b": _grpo(reward="negatives_cut"),
    "reward-d": _grpo(reward="penalised_cut"),
    "reward-e": _grpo(reward="prefix"),
    "hub-corrected": _grpo(hub_corrected=True),
    "coverage-1": _grpo(coverage=1.0),
    "coverage-8": _grpo(coverage=8.0),
    "one-stage": _grpo(stages=_stages("both")),
    "two-stages": _grpo(stages=_stages("negative", "both")),
    "reversed": _grpo(stages=_stages(*reversed(CONTEXTS))),
    "no-cleaning": _grpo(clean=False),
    "no-swing": _grpo(targets="future"),
    "keep-best": _grpo(keep="best"),
    "kl-hold": _grpo(kl_rule="hold"),
    **{f"horizon-{days}": _grpo(horizon_days=days) for days in HORIZONS},
    **{f"gamma-{penalty:g}": _grpo(penalty=penalty) for penalty in PENALTIES},
    **{f"beta-{weight:g}": _grpo(stages=_stages(*CONTEXTS, kl_weight=weight)) for weight in KL_WEIGHTS},
    **{f"group-{size}": _grpo(group_size=size) for size in GROUP_SIZES},
    **{f"lora-{rank}": Arm({"backbone": {"lora": {"rank": rank, "alpha": 2 * rank}}}) for rank in RANKS},
}
"""In the order in which they are run: what the paper has first."""

_OURS = Line("CoNRec", OURS)
_SFT = Line("before GRPO", OURS, "conrec-sft")

FORGETTING = (
    Line("alignment alone", OURS, "conrec-alignment"),
    Line("next-negative SFT", OURS, "conrec-sft"),
    Line("plain GRPO", "plain-grpo"),
    _OURS,
)
"""Lines of the paper's Table 3."""

GROUPS: Sequence[Group] = (
    Group(
        "ablation",
        "Ablation, each line adds to the one above",
        (
            Line("bidirectional translation, next-negative SFT", "no-alignment", "conrec-sft"),
            Line("+ item-level alignment", OURS, "conrec-sft"),
            Line("+ progressive GRPO (similarity to the next negative)", "reward-next"),
            Line("+ future negatives and their neighbours", "reward-a"),
            Line("+ future positives: CoNRec", OURS),
        ),
        Line("+ future positives: CoNRec", OURS),
    ),
    Group(
        "rewards",
        "Rewards",
        (
            _SFT,
            Line("(a) negatives", "reward-a"),
            Line("(b) negatives above 0.6", "reward-b"),
            Line("(c) negatives less positives: CoNRec", OURS),
            Line("(d) both above 0.6", "reward-d"),
            Line("(e) codes in common", "reward-e"),
            Line("(c) corrected for hubs", "hub-corrected"),
            Line("(c) with coverage, weight 1", "coverage-1"),
            Line("(c) with coverage, weight 8", "coverage-8"),
        ),
        Line("(c) negatives less positives: CoNRec", OURS),
    ),
    Group(
        "stages",
        "Schedules of as many contexts",
        (
            _SFT,
            Line("one stage: all feedback", "one-stage"),
            Line("two stages: negatives, all feedback", "two-stages"),
            Line("three stages: CoNRec", OURS),
            Line("three stages reversed", "reversed"),
            Line("three stages without cleaning", "no-cleaning"),
            Line("plain GRPO: one stage, hits on the next item", "plain-grpo"),
        ),
        Line("three stages: CoNRec", OURS),
    ),
    Group(
        "rules",
        "What a stage leaves, and how hard KL pulls, by validation lists",
        (
            _SFT,
            Line("last state, β fixed: CoNRec", OURS),
            Line("best state", "keep-best"),
            Line("β grows while FHR@20 is lost", "kl-hold"),
        ),
        Line("last state, β fixed: CoNRec", OURS),
    ),
    Group(
        "horizon",
        "Days of a window in GRPO",
        (
            *(Line(f"{days}", f"horizon-{days}") for days in HORIZONS if days < 7),
            Line("7: CoNRec", OURS),
            *(Line(f"{days}", f"horizon-{days}") for days in HORIZONS if days > 7),
            Line("7, without Swing neighbours", "no-swing"),
        ),
        Line("7: CoNRec", OURS),
    ),
    Group(
        "gamma",
        "γ, weight of the penalty",
        (
            Line("0", "reward-a"),
            Line("0.25", "gamma-0.25"),
            Line("0.5: CoNRec", OURS),
            Line("1", "gamma-1"),
        ),
        Line("0.5: CoNRec", OURS),
    ),
    Group(
        "beta",
        "β, weight of KL",
        (Line("0", "beta-0"), Line("0.1", "beta-0.1"), Line("0.5: CoNRec", OURS), Line("2", "beta-2")),
        Line("0.5: CoNRec", OURS),
    ),
    Group(
        "group-size",
        "G, rollouts of a context",
        (Line("4", "group-4"), Line("8", "group-8"), Line("16: CoNRec", OURS), Line("32", "group-32")),
        Line("16: CoNRec", OURS),
    ),
    Group(
        "lora",
        "Rank of adapters from the alignment stage on",
        (*(Line(f"{rank}", f"lora-{rank}") for rank in RANKS), Line("all weights: CoNRec", OURS)),
        Line("all weights: CoNRec", OURS),
    ),
)

"""The rows of a run: the names of its models in the order of the table, and what the ablation calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "ALIGNMENT",
    "BASELINES",
    "CONTEXTS",
    "REFERENCE",
    "conrec_rows",
    "grpo_rows",
    "in_order",
    "ours",
    "row_label",
    "rows_of",
]

BASELINES = (
    "most-disliked", "live-popularity", "category-rule", "nearest-item", "item-knn-negatives", "item-knn-all",
    "user-knn", "ease",
    "caser", "sasrec", "sasrec-sampled", "sasrec-gbce", "bert4rec", "fdsa", "s3-rec", "esasrec", "hstu",
    "sasrec-signed", "two-tower", "signed-graph",
    "p5-cid", "tiger", "tallrec", "instructrec", "lc-rec-negatives", "lc-rec-both", "mini-one-rec",
)  # fmt: skip
"""The rows that are not ours, all of them; `conrec.baselines.registry` says what each is."""
REFERENCE = "conrec"
"""CoNRec after all of its stages; every other row is compared with it."""
ALIGNMENT = "conrec-alignment"
"""CoNRec after item-level alignment, which may be left out."""
LABELS = {
    "conrec-translation": "bidirectional translation",
    ALIGNMENT: "+ item-level alignment",
    "conrec-sft": "+ next-negative SFT",
}
"""What each stage before GRPO adds."""
CONTEXTS = {"recent": "recent negatives", "negative": "all negatives", "both": "all feedback"}
"""What a prompt shows, by the name of its context (`conrec.config.Context`)."""
_GRPO_STAGE = re.compile(r"conrec-grpo-\d+")


@runtime_checkable
class HasRows(Protocol):
    """Whatever says what a run trains; a `conrec.config.Config` does, and may ask for its rows while it is checked."""

    @property
    def run(self) -> Any:
        """`conrec.config.RunConfig`: ``conrec``, whether CoNRec itself is trained."""

    @property
    def baselines(self) -> Any:
        """`conrec.config.BaselinesConfig`: ``rows``."""

    @property
    def alignment(self) -> Any:
        """`conrec.config.AlignmentConfig`: ``samples``, 0 where the stage is left out."""

    @property
    def grpo(self) -> Any:
        """`conrec.config.GrpoConfig`: ``stages``, each with a ``context``."""


def grpo_rows(config: HasRows) -> list[str]:
    """CoNRec after each stage of GRPO; the last one is plain ``conrec``."""
    return [*(f"conrec-grpo-{number}" for number in range(1, len(config.grpo.stages))), REFERENCE]


def conrec_rows(config: HasRows) -> list[str]:
    """CoNRec after each of its stages; the last one is plain ``conrec``. Alignment without samples is no stage.

    >>> from conrec.config import Config
    >>> conrec_rows(Config())[2:]
    ['conrec-sft', 'conrec-grpo-1', 'conrec-grpo-2', 'conrec']
    """
    supervised = [name for name in LABELS if name != ALIGNMENT or config.alignment.samples]
    return [*supervised, *grpo_rows(config)]


def rows_of(config: HasRows) -> list[str]:
    """All rows that a run trains, in the order of the table: baselines, the stages of CoNRec, CoNRec."""
    chosen = set(config.baselines.rows)
    return [*(name for name in BASELINES if name in chosen), *(conrec_rows(config) if config.run.conrec else ())]


def ours(name: str) -> bool:
    """Whether a name is that of a baseline or of a stage of CoNRec, trained by this run or not."""
    return name in {*BASELINES, *LABELS, REFERENCE} or _GRPO_STAGE.fullmatch(name) is not None


def in_order(names: Iterable[str], config: HasRows) -> list[str]:
    """The names that belong to a run: its own rows in the order of the table, then strangers, sorted.

    A stranger is somebody else's model whose files were put beside the run's own. A row of ours that the
    configuration does not train is no stranger: it is left over from an earlier run in this folder, and left out.

    >>> from conrec.config import Config
    >>> in_order(["mine", "conrec", "conrec-grpo-7", "sasrec"], Config())
    ['sasrec', 'conrec', 'mine']
    """
    given, rows = set(names), rows_of(config)
    strangers = {name for name in given.difference(rows) if not ours(name)}
    return [name for name in rows if name in given] + sorted(strangers)


def row_label(name: str, config: HasRows) -> str:
    """What a stage of CoNRec adds, in words; the name itself for any other row.

    >>> from conrec.config import Config
    >>> row_label("conrec-grpo-2", Config())
    '+ GRPO, all negatives'
    """
    grpo = grpo_rows(config)
    if name in grpo:
        number = grpo.index(name)
        contexts = [stage.context for stage in config.grpo.stages]
        which = f" {number + 1}" if contexts.count(contexts[number]) > 1 else ""
        return f"+ GRPO{which}, {CONTEXTS[contexts[number]]}"
    return LABELS.get(name, name)

"""P5-CID: a T5 is asked in words for the next dislike, and IDs say which items occur together (arXiv 2305.06569).

"How to Index Item IDs for Recommendation Foundation Models" (Hua et al., SIGIR-AP 2023) over P5 (arXiv 2203.13366), its
sequential task, with the collaborative indexing of `conrec.baselines.generative.indexing`. Training, search and scores
are those of TIGER: `conrec.baselines.generative.retrieval`. Departures of its own:

* the prompt is one, a token a word, and stands before user and history: a model from scratch knows no words, and the
  paper's ten ways to put the question would teach it nothing but these;
* the user is one hashed token, as in TIGER, not the pieces of a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from conrec.baselines.generative.indexing import collaborative_ids
from conrec.baselines.generative.retrieval import GenerativeRetrieval, ItemIds
from conrec.settings.baselines.generative import P5CidConfig
from conrec.workspace import Workspace

__all__ = ["PROMPT", "SPACE", "P5Cid"]

PROMPT = "predict the next item that is disliked by a user who disliked"
"""Words before the user and his history."""
SPACE: dict[str, tuple[Any, ...]] = {
    "learning_rate": (3e-4, 1e-3, 3e-3),
    "dropout": (0.1, 0.3, 0.5),
    "last_token": ("shared", "item"),
}
"""The grid of `conrec baselines search`."""


@dataclass(frozen=True)
class P5Cid(GenerativeRetrieval):
    """A fitted P5-CID."""

    kind: ClassVar[str] = "P5-CID"
    words: ClassVar[int] = len(PROMPT.split())

    @classmethod
    def settings_of(cls, space: Workspace) -> P5CidConfig:
        """The section ``baselines.p5_cid``."""
        return space.config.baselines.p5_cid

    @classmethod
    def ids_of(cls, space: Workspace) -> ItemIds:
        """IDs from what occurs together in the training period."""
        return collaborative_ids(space.training_log, cls.settings_of(space), space.seed("p5-cid", "indexing"))

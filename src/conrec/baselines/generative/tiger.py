"""TIGER: a T5 from scratch writes the semantic ID of the next dislike (Rajput et al., NeurIPS 2023, arXiv 2305.05065).

As in the paper: every code of every level is a token; of a history the latest 20 events are read; the user's ID may be
hashed to one of `user_tokens` tokens, which stands before the history (the paper: 2,000, here none by default: with
hundreds of users such tokens are learned by heart). Departures, besides those of
`conrec.baselines.generative.retrieval`:

* the semantic IDs are the run's own, of the same quantiser as CoNRec's, with its way of telling collisions apart
  (`semantic_ids.collisions = "extra_level"` is the paper's fourth code): rows differ in the model, not in the IDs;
* two layers of width 64 in the place of four of width 128: the paper's 13 million parameters are for hundreds of
  thousands of sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from conrec.baselines.generative.retrieval import GenerativeRetrieval, ItemIds
from conrec.settings.baselines.generative import TigerConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "Tiger"]

SPACE: dict[str, tuple[Any, ...]] = {
    "learning_rate": (3e-4, 1e-3, 3e-3),
    "dropout": (0.1, 0.3, 0.5),
    "user_tokens": (0, 2000),
}
"""The grid of `conrec baselines search`."""


@dataclass(frozen=True)
class Tiger(GenerativeRetrieval):
    """A fitted TIGER."""

    kind: ClassVar[str] = "TIGER"

    @classmethod
    def settings_of(cls, space: Workspace) -> TigerConfig:
        """The section ``baselines.tiger``."""
        return space.config.baselines.tiger

    @classmethod
    def ids_of(cls, space: Workspace) -> ItemIds:
        """The run's semantic IDs."""
        sids = space.items.semantic_ids
        return ItemIds(sids.resolved, sids.sizes, sids.shared)

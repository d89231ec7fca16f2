"""TIGER: a T5 from scratch writes the semantic ID of the next dislike (Rajput et al., NeurIPS 2023, arXiv 2305.05065).

As in the paper: the user's ID is hashed to one of 2,000 tokens and stands before the history; every code of every level
is a token; of a history the latest events are read. Departures, besides those of
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

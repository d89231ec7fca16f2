"""A trained network over histories as a row of the table: scores of the whole catalogue, saved and loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.artefacts import read_json, read_tensors, write_json, write_tensors
from conrec.baselines.base import CatalogueScorer, Curve
from conrec.baselines.sequences.histories import Histories, read_histories
from conrec.baselines.sequences.learning import frozen, parameter_count, seeded
from conrec.errors import ArtefactError
from conrec.logs.log import Log
from conrec.recommender import Queries
from conrec.settings.baselines.base import TrainingSettings
from conrec.workspace import Workspace

__all__ = ["SequenceNetwork", "SequenceScorer"]

_Scorer = TypeVar("_Scorer", bound="SequenceScorer")


class SequenceNetwork(nn.Module, ABC):
    """A network that scores the catalogue from a history.

    Attributes:
        n_items: size of the catalogue.
        max_length: events of a history that it reads.
        signs: of the feedback that it reads.
    """

    n_items: int
    max_length: int
    signs: tuple[int, ...]

    @abstractmethod
    def answer(self, histories: Histories) -> Float[Tensor, "B items"]:
        """Score of every item for each history, higher for a more likely dislike."""


@dataclass(frozen=True, slots=True)
class SequenceScorer(CatalogueScorer, ABC):
    """A fitted network; a row of the table says how its network is built and trained.

    Attributes:
        network: the best state on validation, in double precision.
        settings: of the row.
        curve: series of the training by name, each of [epoch, value] pairs.
    """

    network: SequenceNetwork
    settings: TrainingSettings
    curve: Curve = field(default_factory=dict)

    kind: ClassVar[str] = "sequence"
    """What `save` writes into the folder, so that one row's folder is not read as another's."""
    query_batch: ClassVar[int] = 32
    """Histories answered at a time: few, so that what a block computes stays in the cache."""

    @classmethod
    def settings_of(cls, space: Workspace, name: str) -> Any:
        """The section of the configuration that a row is fitted with, of the type that `build` takes."""
        return getattr(space.config.baselines, name.replace("-", "_"))

    @classmethod
    @abstractmethod
    def build(cls, space: Workspace, settings: Any) -> SequenceNetwork:
        """A network with random weights, from torch's global generator; what of the run it reads (categories,
        embeddings) is not saved, and read from the run again."""

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return parameter_count(self.network)

    def scores(self, log: Log, queries: Queries) -> Float32[Array, "queries items"]:
        """Score of every item after what the user did strictly before the query's time."""
        result = np.empty((len(queries), self.network.n_items), dtype=np.float32)
        for begin in range(0, len(queries), self.query_batch):
            batch = queries.select(slice(begin, begin + self.query_batch))
            with torch.no_grad():
                result[begin : begin + len(batch)] = self.network.answer(self.read(log, batch)).float().numpy()
        return result

    def read(self, log: Log, queries: Queries) -> Histories:
        """What the network is told of each question."""
        return read_histories(log, queries, self.network.max_length, self.network.signs)

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``config.json`` and ``curve.json`` into ``folder``."""
        state = self.network.state_dict()
        write_tensors(folder / "model.safetensors", {name: one.float().numpy() for name, one in state.items()})
        described = {
            "kind": self.kind,
            "n_items": self.network.n_items,
            "settings": self.settings.model_dump(mode="json"),
        }
        write_json(folder / "config.json", described)
        write_json(folder / "curve.json", self.curve)

    @classmethod
    def load(cls: type[_Scorer], folder: Path, space: Workspace, name: str) -> _Scorer:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others or the run's catalogue.
        """
        described = read_json(folder / "config.json")
        try:
            if described["kind"] != cls.kind or described["n_items"] != space.prepared.log.n_items:
                raise ValueError(f"{described['kind']} of {described['n_items']} items")
            settings = type(cls.settings_of(space, name)).model_validate(described["settings"])
            with seeded(0):  # the weights are replaced; only torch's global generator must stay as it was
                network = cls.build(space, settings)
            state = {key: torch.from_numpy(one) for key, one in read_tensors(folder / "model.safetensors").items()}
            network.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"is not a saved {cls.kind} of this catalogue ({error})", where=str(folder)) from None
        return cls(frozen(network), settings, read_json(folder / "curve.json"))

"""A tuned language model that reads titles and scores titles, as a row of the table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from conrec.arrays import Array
from conrec.baselines.base import Curve, without_history
from conrec.baselines.language.title_tree import Branches, merged
from conrec.baselines.language.titles import TitlePrompts, require_titles
from conrec.baselines.registry import REGISTRY
from conrec.baselines.sequences.learning import parameter_count
from conrec.llm.backbone import Backbone
from conrec.llm.sft import Sample, train_supervised
from conrec.llm.tree import TokenTree
from conrec.logs.anchors import Anchors
from conrec.logs.log import Log
from conrec.progress import meter
from conrec.recommender import Queries, Ranking
from conrec.settings.baselines.language import TitleSettings
from conrec.workspace import Workspace

__all__ = ["TitleModel", "auc"]

_Model = TypeVar("_Model", bound="TitleModel")
NODES = 1_024
"""Tokens of titles behind one prompt that are read at a time."""


@dataclass(frozen=True)
class TitleModel(ABC):
    """A row that scores titles behind a prompt about a history.

    The candidates of an anchor are read behind one reading of its prompt. The catalogue is ranked by reading all of its
    titles behind each prompt, where that is little work (`TitleSettings.ranked_cells`); elsewhere nothing is ranked,
    and the row has candidate scores alone.

    Attributes:
        backbone: the model, in evaluation mode.
        prompts: writes its prompts.
        settings: of the row.
        batch_size: prompts read at a time.
        unranked: why the catalogue is not ranked; empty where it is.
        curve: series of the training by name, each of [step, value] pairs.
    """

    backbone: Backbone
    prompts: TitlePrompts
    settings: TitleSettings
    batch_size: int
    unranked: str = ""
    curve: Curve = field(default_factory=dict)

    section: ClassVar[str]
    """Field of `BaselinesConfig` that holds its settings."""
    judges: ClassVar[bool] = False
    """Whether it answers with Yes or No."""

    @classmethod
    def fit(cls: type[_Model], space: Workspace, name: str) -> _Model:
        """Tune the backbone of the row that this one starts from, and keep the state with the best validation AUC.

        Raises:
            NotApplicableError: no item has a title, or the row `judges` and the backbone writes Yes and No
                alike at first.
        """
        require_titles(space)
        backbone = space.backbone(REGISTRY[name].start)
        model = cls.of(space, backbone)
        if cls.judges:
            model.prompts.require_answers()
        settings, log, validation = model.settings, space.prepared.log, space.validation
        curve = train_supervised(
            backbone,
            model.samples(space, name),
            epochs=1,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=space.seed(name),
            description=name,
            evaluations=settings.evaluations,
            evaluate=lambda: model.validation_auc(log, validation),
            series="validation_auc",
            loss_of=model.loss_of,
        )
        return replace(model, curve=curve.lists())

    @property
    def loss_of(self) -> Callable[[Backbone, Sequence[Any]], Tensor] | None:
        """The loss of a batch of `samples`; None: the cross-entropy of what they mark as target."""
        return None

    @abstractmethod
    def samples(self, space: Workspace, name: str) -> Sequence[Sample]:
        """One pass over training anchors, drawn where there are more than `TitleSettings.samples`."""

    @abstractmethod
    def candidate_prompts(self, log: Log, user: int, timestamp: int, candidates: Sequence[int]) -> list[list[int]]:
        """Prompts behind which candidates are scored; their score is the mean."""

    @abstractmethod
    def catalogue_prompt(self, log: Log, user: int, timestamp: int) -> list[int]:
        """The prompt behind which all titles of the catalogue are scored."""

    @abstractmethod
    def sequence(self, item: int) -> list[int]:
        """What is read of an item behind a prompt."""

    @abstractmethod
    def title_scores(self, tree: TokenTree, branches: Branches, *, listed: bool) -> Float[Tensor, "B C"]:
        """Score of each `sequence` behind each prompt; ``listed``: behind those of `candidate_prompts`."""

    def score(self, log: Log, queries: Queries, candidates: Int32[Array, "Q C"]) -> Float32[Array, "Q C"]:
        """See `conrec.recommender.Recommender.score`."""
        scores = np.full(candidates.shape, -np.inf, dtype=np.float32)
        with meter("scoring candidates", len(queries)) as tick:
            for begin in range(0, len(queries), self.batch_size):
                rows = slice(begin, begin + self.batch_size)
                scores[rows] = self._score(log, queries.select(rows), candidates[rows])
                tick(len(scores[rows]))
        return scores

    @torch.no_grad()
    def _score(self, log: Log, queries: Queries, candidates: Array) -> Array:
        prompts: list[list[int]] = []
        owner: list[int] = []
        sequences: list[list[list[int]]] = []
        for row, (user, time) in enumerate(zip(queries.user.tolist(), queries.timestamp.tolist(), strict=True)):
            items = candidates[row][candidates[row] >= 0].tolist()
            asked = self.candidate_prompts(log, user, time, items)
            prompts += asked
            owner += [row] * len(asked)
            sequences += [[self.sequence(item) for item in items]] * len(asked)
        found = self.title_scores(
            TokenTree(self.backbone, prompts), merged(sequences).to(self.backbone.device), listed=True
        )
        place = torch.tensor(owner, device=found.device)
        total = torch.zeros(len(queries), found.shape[1], dtype=torch.float64, device=found.device)
        total.index_add_(0, place, found.double())
        mean = (total / torch.bincount(place, minlength=len(queries))[:, None]).float().cpu().numpy()
        scores = np.full(candidates.shape, -np.inf, dtype=np.float32)
        for row in range(len(queries)):
            there = candidates[row] >= 0
            scores[row, there] = mean[row, : there.sum()]
        return scores

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """See `conrec.recommender.Recommender.predict`; every place is -1 where the catalogue is not ranked."""
        ranking = Ranking(
            np.full((len(queries), k), -1, dtype=np.int32), np.full((len(queries), k), -np.inf, dtype=np.float32)
        )
        if self.unranked:
            return ranking
        prompts = [
            self.catalogue_prompt(log, user, time)
            for user, time in zip(queries.user.tolist(), queries.timestamp.tolist(), strict=True)
        ]
        order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
        with meter("reading the catalogue", len(queries)) as tick:
            for begin in range(0, len(order), self.batch_size):
                rows = order[begin : begin + self.batch_size]
                scores = self._catalogue_scores([prompts[row] for row in rows], log.n_items)
                if not history_eligible:
                    scores = without_history(scores, log, queries.select(rows))
                best = Ranking.from_scores(scores, k)
                ranking.item[rows], ranking.score[rows] = best.item, best.score
                tick(len(rows))
        return ranking

    @torch.no_grad()
    def _catalogue_scores(self, prompts: list[list[int]], n_items: int) -> Float32[Array, "B items"]:
        """Score of every item behind each prompt."""
        tree = TokenTree(self.backbone, prompts)
        scores = np.empty((len(prompts), n_items), dtype=np.float32)
        for items, branches in self._catalogue:
            scores[:, items] = self.title_scores(tree, branches.rows(len(prompts)), listed=False).float().cpu().numpy()
        return scores

    @cached_property
    def _catalogue(self) -> list[tuple[Array, Branches]]:
        """All items in stretches of titles that begin alike, and what is read of each."""
        sequences = [self.sequence(item) for item in range(len(self.prompts))]
        order = sorted(range(len(sequences)), key=sequences.__getitem__)
        stretches: list[list[int]] = []
        room = 0
        for item in order:
            if len(sequences[item]) > room:
                stretches.append([])
                room = max(NODES, len(sequences[item]))
            stretches[-1].append(item)
            room -= len(sequences[item])
        return [
            (np.asarray(items), merged([[sequences[item] for item in items]]).to(self.backbone.device))
            for items in stretches
        ]

    @property
    def parameters(self) -> int:
        """Learned numbers of the backbone."""
        return parameter_count(self.backbone.model)

    def save(self, folder: Path) -> None:
        """Write the backbone into ``folder``."""
        self.backbone.save(folder)

    @classmethod
    def load(cls: type[_Model], folder: Path, space: Workspace, name: str) -> _Model:
        """Read what `save` wrote.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        return cls.of(space, space.backbone_in(folder))

    @classmethod
    def of(cls: type[_Model], space: Workspace, backbone: Backbone) -> _Model:
        """A row from a backbone."""
        settings: TitleSettings = getattr(space.config.baselines, cls.section)
        prompts = TitlePrompts(backbone, space.titles, settings.history, space.config.prompts.title_tokens)
        items, asked = len(space.titles), len(space.asked)
        unranked = ""
        if items * asked > settings.ranked_cells:
            unranked = (
                f"to rank, it would read {items:,} titles for each of {asked:,} anchors, more than "
                f"{cls.section}.ranked_cells = {settings.ranked_cells:,}"
            )
        return cls(backbone, prompts, settings, space.config.prediction.batch_size, unranked)

    def validation_auc(self, log: Log, anchors: Anchors) -> float:
        """Mean `auc` over the candidates of validation anchors; 0.5 where there are none."""
        values = auc(self.score(log, anchors.queries, anchors.candidates), anchors.candidates, anchors.next_item)
        counted = values[~np.isnan(values)]
        return float(counted.mean()) if len(counted) else 0.5


def auc(
    scores: Float32[Array, "A C"], candidates: Int32[Array, "A C"], answer: Int32[Array, " A"]
) -> Float[Array, " A"]:
    """Share of an anchor's other candidates with a lower score than the true one, equal ones counting half.

    NaN where the true one is not among them or stands alone. Moves in smaller steps than candidate accuracy, so that
    few validation anchors tell states apart; TALLRec is measured by it.

    >>> candidates = np.array([[7, 8, 9, -1]] * 2, dtype=np.int32)
    >>> scores = np.array([[2, 1, 0, 9], [1, 1, 0, 9]], dtype=np.float32)
    >>> auc(scores, candidates, np.array([7, 7], dtype=np.int32)).tolist()
    [1.0, 0.75]
    """
    true = candidates == answer[:, None]
    others = (candidates >= 0) & ~true
    own = np.where(true, scores, -np.inf).max(1, initial=-np.inf)[:, None]
    below = (others * ((scores < own) + 0.5 * (scores == own))).sum(1)
    counts = others.sum(1)
    return np.where(true.any(1) & (counts > 0), below / np.maximum(counts, 1), np.nan)

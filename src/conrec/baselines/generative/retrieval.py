"""An encoder-decoder over item IDs as a row of the table: trained, asked, saved and loaded alike for TIGER and P5-CID.

From both papers and their code differ here:

* histories and targets are dislikes; every dislike of the training period is a target, the first of a user as well, but
  one alone of those that a user gave at the same time;
* the model is made from scratch, small, with AdamW at a constant rate (TIGER: T5X from scratch with an inverse square
  root schedule; P5: a pretrained T5-small), and the epoch with the best validation FHR@20 is kept;
* by default the encoder is causal, so that one pass of it serves all targets of a stretch of history
  (`conrec.baselines.generative.encoder_decoder`); T5's own is a setting;
* by default a code's probabilities sum to 1 over the codes that some item has there, in training and answers: together
  they are the probabilities of a softmax over the catalogue, and no learning is spent on which IDs exist;
* each state of the trie then has a bias that starts at the popularity below it, as the items of other rows have one;
* the answer is the exact list of the most probable items, not what a beam finds, and every item of it exists and is
  eligible (TIGER drops the invalid IDs of a beam);
* items that share an ID are named one after the other in the order of the catalogue, each with the score of the ID.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from conrec.arrays import Array
from conrec.artefacts import read_json, read_tensors, write_json, write_tensors
from conrec.baselines.base import Curve
from conrec.baselines.generative.encoder_decoder import EncoderDecoder
from conrec.baselines.generative.examples import batch_of, examples_of, inputs, loss_of
from conrec.baselines.generative.tokens import Tokens
from conrec.baselines.generative.trie_search import CodeLogits, DecoderTree, log_probabilities, popularity
from conrec.baselines.sequences.learning import frozen, learn, parameter_count, seeded, validation_fhr
from conrec.baselines.sequences.stretches import batches_by_length
from conrec.config import PredictionConfig
from conrec.errors import ArtefactError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.generation import Beams, search_tree
from conrec.llm.recommender import ranked
from conrec.logs.log import Log
from conrec.progress import meter
from conrec.protocol import NEGATIVE
from conrec.recommender import Queries, Ranking
from conrec.seeds import generator
from conrec.settings.baselines.generative import EncoderDecoderSettings
from conrec.workspace import Workspace

__all__ = ["GenerativeRetrieval", "ItemIds"]

_Row = TypeVar("_Row", bound="GenerativeRetrieval")
WHOLE = 4
"""Questions are read in batches of `prediction.batch_size` times so many: the model is small."""


@dataclass(frozen=True, slots=True)
class ItemIds:
    """What the model calls the items.

    Attributes:
        codes: int32 [items, levels].
        sizes: codes of each level.
        shared: whether several items may have the same codes.
    """

    codes: Array
    sizes: tuple[int, ...]
    shared: bool = False

    def trie(self) -> Trie:
        """Of the catalogue."""
        return Trie.from_codes(torch.from_numpy(self.codes), self.sizes, shared=self.shared)


@dataclass(frozen=True)
class GenerativeRetrieval(ABC):
    """A fitted encoder-decoder (a `conrec.recommender.Recommender`).

    Attributes:
        network: the best state on validation, in double precision.
        ids: of the catalogue.
        asked: how lists are searched.
        curve: series of the training by name, each of [epoch, value] pairs.
    """

    network: EncoderDecoder
    ids: ItemIds
    asked: PredictionConfig
    curve: Curve = field(default_factory=dict)

    kind: ClassVar[str] = "encoder-decoder"
    """What `save` writes into the folder, so that one row's folder is not read as another's."""
    words: ClassVar[int] = 0
    """Words of the prompt."""

    @classmethod
    @abstractmethod
    def settings_of(cls, space: Workspace) -> EncoderDecoderSettings:
        """The row's section of the configuration."""

    @classmethod
    @abstractmethod
    def ids_of(cls, space: Workspace) -> ItemIds:
        """What a new model is to call the items."""

    @classmethod
    def fit(cls: type[_Row], space: Workspace, name: str) -> _Row:
        """Train on the dislikes of the training period and keep the state with the best validation FHR@20.

        Raises:
            DataError: nobody disliked anything in the training period.
            TrainingError: the loss is not finite.
        """
        settings, ids, device = cls.settings_of(space), cls.ids_of(space), torch.device(space.device)
        tokens = Tokens(ids.codes, ids.sizes, settings.user_tokens, cls.words)
        seed = space.seed(name)
        # While it is trained its lists are those of plain beams as wide as the list is long.
        quick = space.config.prediction.model_copy(update={"certified": False})
        with seeded(seed):
            network = cls._network(ids, settings).to(device)
            first = cls(network, ids, quick)
            trie = first.trie
            if len(network.bias):
                counts = torch.from_numpy(space.training_log.negative_counts()[1]).float().to(device)
                with torch.no_grad():
                    for one, start in zip(network.bias, popularity(trie, counts), strict=True):
                        one.copy_(start)

            def batches(epoch: int) -> list[Any]:
                order = generator(seed, "order", epoch)
                examples = examples_of(space.training_log, settings, generator(seed, "ties", epoch))
                chosen = batches_by_length(examples, settings.batch_size, order)
                return [batch_of(one, tokens, settings.encoder == "causal", device) for one in chosen]

            best, curve = learn(
                network,
                batches,
                lambda batch: loss_of(network, tokens, trie, batch),
                lambda batch: batch.targets,
                settings,
                lambda state: validation_fhr(replace(first, network=state), space, space.validation),
                cls.kind,
            )
        return cls(best, ids, space.config.prediction, curve)

    @classmethod
    def _network(cls, ids: ItemIds, settings: EncoderDecoderSettings) -> EncoderDecoder:
        """With random weights, from torch's global generator."""
        vocabulary = Tokens(ids.codes, ids.sizes, settings.user_tokens, cls.words).size
        if settings.loss == "vocabulary" or not settings.popularity_bias:
            return EncoderDecoder(vocabulary, settings)
        trie = ids.trie()
        return EncoderDecoder(vocabulary, settings, [trie.n_nodes(level) for level in range(trie.levels)])

    @cached_property
    def tokens(self) -> Tokens:
        """The vocabulary."""
        return Tokens(self.ids.codes, self.ids.sizes, self.network.settings.user_tokens, self.words)

    @cached_property
    def trie(self) -> Trie:
        """Of the catalogue."""
        return self.ids.trie().to(self.network.device)

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return parameter_count(self.network)

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """See `conrec.recommender.Recommender.predict`; the score is the log-probability of the item.

        Raises:
            ArtefactError: the model was fitted on another catalogue.
        """
        budget = self.asked.node_budget if self.asked.certified else None
        head = CodeLogits(self.network, self.tokens)

        @torch.no_grad()
        def search(rows: list[list[int]], trie: EligibleTrie) -> Beams:
            tree = DecoderTree(self.network, self.network.encode(inputs(rows).to(self.network.device)))
            certified, normalise = self.asked.certified, self.asked.normalise
            return search_tree(head, tree, trie, k, k, certified=certified, budget=budget, normalise=normalise)

        return ranked(search, self._batches(log, queries), self.trie, log, queries, k, history_eligible, budget)

    @torch.no_grad()
    def score(self, log: Log, queries: Queries, candidates: Array) -> Array:
        """See `conrec.recommender.Recommender.score`; the score is the log-probability of the item in the catalogue.

        Raises:
            ArtefactError: the model was fitted on another catalogue.
        """
        scores = np.full(candidates.shape, -np.inf, dtype=np.float32)
        head = CodeLogits(self.network, self.tokens)
        for rows, histories in self._batches(log, queries):
            items = torch.from_numpy(candidates[rows].astype(np.int64)).to(self.network.device)
            every = EligibleTrie(self.trie, items.new_empty(len(rows), 0))
            memory = self.network.encode(inputs(histories).to(items.device))
            written = self.tokens.of_items_on(items.clamp(min=0), self.trie.codes)
            hidden = self.network.decode(memory, written[..., :-1])
            logs = log_probabilities(head, every, hidden, items.clamp(min=0)).sum(-1)
            scores[rows] = logs.masked_fill(items < 0, -torch.inf).float().cpu().numpy()
        return scores

    def _batches(self, log: Log, queries: Queries) -> Iterator[tuple[Array, list[list[int]]]]:
        """Rows of the queries and what the encoder reads for each, in batches of similar length."""
        if log.n_items != len(self.ids.codes):
            raise ArtefactError(
                f"{type(self).__name__} knows {len(self.ids.codes)} items",
                expected=f"the {log.n_items} items of the log's catalogue",
                mend="The model belongs to another catalogue: fit it again on this log.",
            )
        read = []
        for user, timestamp in zip(queries.user.tolist(), queries.timestamp.tolist(), strict=True):
            past = log.history(user, timestamp)
            items = log.item[past[log.feedback[past] == NEGATIVE]][-self.network.settings.max_length :]
            read.append(self.tokens.of_history(log.user_ids[user], items))
        order = np.argsort([len(one) for one in read], kind="stable")
        size = self.asked.batch_size * WHOLE
        with meter(self.kind, len(order)) as tick:
            for begin in range(0, len(order), size):
                rows = order[begin : begin + size]
                yield rows, [read[row] for row in rows]
                tick(len(rows))

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors``, ``ids.safetensors``, ``config.json`` and ``curve.json`` into ``folder``."""
        state = {name: one.float().cpu().numpy() for name, one in self.network.named_parameters()}
        write_tensors(folder / "model.safetensors", state)
        write_tensors(folder / "ids.safetensors", {"codes": self.ids.codes})
        described = {
            "kind": self.kind,
            "sizes": list(self.ids.sizes),
            "shared": self.ids.shared,
            "settings": self.network.settings.model_dump(mode="json"),
        }
        write_json(folder / "config.json", described)
        write_json(folder / "curve.json", self.curve)

    @classmethod
    def load(cls: type[_Row], folder: Path, space: Workspace, name: str) -> _Row:
        """Read what `save` wrote; it answers to the byte as the saved one did.

        Raises:
            ArtefactError: a file is missing, damaged, or does not fit the others or the run's catalogue.
        """
        described = read_json(folder / "config.json")
        arrays = read_tensors(folder / "ids.safetensors")
        try:
            ids = ItemIds(arrays["codes"], tuple(described["sizes"]), described["shared"])
            n_items = space.prepared.log.n_items
            if described["kind"] != cls.kind or ids.codes.shape != (n_items, len(ids.sizes)):
                raise ValueError(f"{described['kind']} of {ids.codes.shape} codes")
            settings = type(cls.settings_of(space)).model_validate(described["settings"])
            with seeded(0):
                network = cls._network(ids, settings)
            state = read_tensors(folder / "model.safetensors")
            own = dict(network.named_parameters())
            if own.keys() != state.keys() or any(own[one].shape != state[one].shape for one in own):
                raise ValueError("the weights are of another model")
            with torch.no_grad():
                for key, one in own.items():
                    one.copy_(torch.from_numpy(state[key]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"is not a saved {cls.kind} of this catalogue ({error})", where=str(folder)) from None
        network = network.to(torch.device(space.device))
        return cls(frozen(network), ids, space.config.prediction, read_json(folder / "curve.json"))

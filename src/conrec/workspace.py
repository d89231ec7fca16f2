"""What the stages of a run read, loaded when it is first needed: log, items, prompts, trie, trained models."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from conrec.arrays import Array, Ragged
from conrec.artefacts import hash_file, hash_json
from conrec.config import Config, Context
from conrec.errors import ConfigError
from conrec.evaluation.metrics import fhr
from conrec.items.build import ItemSpace, read_items
from conrec.items.diagnosis.diagnose import read_embeddings
from conrec.items.encoders.collaborative import co_feedback_vectors
from conrec.items.growing.growth import Catalogue, current_catalogue, own_catalogue
from conrec.items.space import TRIE
from conrec.items.trie import Trie
from conrec.items.trie_file import load_trie
from conrec.llm.backbone import Backbone, load_backbone
from conrec.llm.prompts import PromptBuilder
from conrec.llm.recommender import GenerativeRecommender
from conrec.logs.anchors import Anchors, build_anchors
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared, read_prepared
from conrec.logs.swing import gts
from conrec.logs.titles import titles_of
from conrec.protocol import DAY, Periods
from conrec.recommender import Recommender
from conrec.seeds import derive, generator

__all__ = ["DATA_FILES", "DATA_INPUTS", "EMBEDDINGS", "ITEM_INPUTS", "Categories", "Workspace", "device_of"]

DATA_FILES = ("events.parquet", "items.parquet", "anchors.parquet", "periods.json", "counts.json", "swing.parquet")
DATA_INPUTS = tuple(f"data/{name}" for name in DATA_FILES if name != "counts.json")
ITEM_INPUTS = ("items/semantic_ids.parquet", "items/rebuilt.safetensors")
EMBEDDINGS = "items/embeddings.safetensors"
VALIDATION_ANCHORS = 500
"""Validation anchors on which generative models are compared while they train; a seeded sample beyond that."""


def _list_of_files(folder: Path) -> str:
    """A hash of the names, sizes and times of all files below a folder; their contents may take hours to read."""
    files = sorted(one for one in folder.rglob("*") if one.is_file()) if folder.is_dir() else []
    stats = [(one, one.stat()) for one in files]
    return hash_json([[str(one.relative_to(folder)), stat.st_size, stat.st_mtime_ns] for one, stat in stats])


def _as_json(value: object) -> Any:
    """A section of the configuration, or one of its values."""
    return json.loads(value.model_dump_json()) if isinstance(value, BaseModel) else to_jsonable_python(value)


def device_of(config: Config) -> str:
    """The torch device of a run."""
    if config.run.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'run.device is "cuda", and PyTorch finds no such device',
            where="run.device",
            mend='Set run.device = "cpu" or "auto", or install the CUDA build of PyTorch on a machine with a GPU.',
        )
    return config.run.device


@dataclass(frozen=True, slots=True)
class Categories:
    """What kinds each item is of.

    Attributes:
        of: for each item its categories, indices into ``names``.
        names: str [categories], sorted.
    """

    of: Ragged
    names: tuple[str, ...]

    @classmethod
    def of_items(cls, items: pa.Table) -> Categories:
        """Read the column ``category`` of a catalogue (`conrec.logs.schema.ITEMS`)."""
        rows = [row or () for row in items["category"].to_pylist()]
        names = tuple(sorted({name for row in rows for name in row}))
        index = {name: position for position, name in enumerate(names)}
        return cls(Ragged.from_rows([index[name] for name in dict.fromkeys(row)] for row in rows), names)


@dataclass
class Workspace:
    """A run folder and its configuration.

    Attributes:
        folder: of the run.
        config: resolved.
        grown: whether items that were appended after the training belong to it, see `growing.growth`; what a run
            trains and evaluates is of its own items alone.
    """

    folder: Path
    config: Config
    grown: bool = False

    @cached_property
    def prepared(self) -> Prepared:
        """The prepared log."""
        return read_prepared(self.folder)

    @cached_property
    def catalogue(self) -> Catalogue:
        """Where the items lie."""
        return current_catalogue(self.folder) if self.grown else own_catalogue(self.folder)

    @cached_property
    def items(self) -> ItemSpace:
        """Semantic IDs and rebuilt embeddings."""
        return read_items(self.catalogue.folder)

    @cached_property
    def titles(self) -> list[str]:
        """Title of each item; the item's ID where it has none."""
        return titles_of(self.prepared.items)

    def seed(self, *purpose: str | int) -> int:
        """A seed of this run for a purpose."""
        return derive(self.config.run.seed, *purpose)

    @property
    def device(self) -> str:
        """The torch device of the run."""
        return device_of(self.config)

    @cached_property
    def training_log(self) -> Log:
        """The log of the training period alone, over the same users and catalogue."""
        return self.prepared.log.before(self.prepared.periods.validation)

    @cached_property
    def categories(self) -> Categories:
        """What kinds each item is of."""
        return Categories.of_items(self.prepared.items)

    @cached_property
    def embeddings(self) -> Array:
        """What the encoders gave of the run's own items, before it was quantised: float32 [items, d].

        Raises:
            ArtefactError: the file is missing or damaged.
        """
        return read_embeddings(self.folder / "items", self.prepared.log.n_items)

    @cached_property
    def trained_items(self) -> Array:
        """bool [items]: items with an event in the training period; what is learned of items is learned of these."""
        return self.prepared.trained_items()

    def collaborative_vectors(self, seed: int) -> dict[str, Array]:
        """Item vectors from co-feedback of the training period, of each sign that has a weight."""
        log = self.prepared.log
        seen = log.before(self.prepared.periods.validation)
        return co_feedback_vectors(
            seen.user, seen.item, seen.feedback, log.n_items, self.config.encoder.collaborative, seed
        )

    @cached_property
    def trie(self) -> Trie:
        """All semantic IDs."""
        return load_trie(self.catalogue.folder / TRIE, self.items.semantic_ids.resolved, device_of(self.config))

    @cached_property
    def rebuilt(self) -> torch.Tensor:
        """Rebuilt embeddings, float32 [items, d], unit rows."""
        return torch.from_numpy(np.ascontiguousarray(self.items.rebuilt, dtype=np.float32)).to(device_of(self.config))

    @cached_property
    def asked(self) -> Anchors:
        """Validation and test anchors, on which every model is asked."""
        return self.prepared.anchors.select(self.prepared.anchors.split > 0)

    @cached_property
    def validation(self) -> Anchors:
        """Validation anchors for model selection, at most `VALIDATION_ANCHORS`."""
        anchors = self.prepared.anchors.of_split("validation")
        if len(anchors) <= VALIDATION_ANCHORS:
            return anchors
        chosen = generator(self.config.run.seed, "validation anchors").permutation(len(anchors))[:VALIDATION_ANCHORS]
        return anchors.select(np.sort(chosen))

    def dislikes(self, split: str, horizon_days: int) -> Anchors:
        """One anchor for every dislike of a period, with windows cut at its end.

        (Those of the validation split tile a user's weeks, so that almost none has a dislike of the last days, and
        the `recent` context would show nothing; so validation rewards are asked of these.)

        Args:
            split: "train" or "validation".
            horizon_days: length of the windows.
        """
        log, periods = self.prepared.log, self.prepared.periods
        if split == "train":
            if horizon_days == self.config.protocol.horizon_days:
                return self.prepared.anchors.of_split("train")
            return build_anchors(log, periods, horizon_days * DAY).of_split("train")
        as_if_later = Periods(periods.test, periods.end, periods.end + 1)
        anchors = build_anchors(log, as_if_later, horizon_days * DAY).of_split("train")
        return anchors.select(anchors.timestamp >= periods.validation)

    def gts(self, anchors: Anchors) -> Ragged:
        """Future negatives with their Swing neighbours."""
        return gts(anchors, self.prepared.swing)

    def targets(self, anchors: Anchors) -> Ragged:
        """What the rollouts of GRPO are to meet, by ``grpo.targets``."""
        match self.config.grpo.targets:
            case "next":
                return Ragged.from_rows(anchors.next_item[:, None])
            case "future":
                return anchors.future_negatives
            case "swing":
                return self.gts(anchors)

    def prompts(self, backbone: Backbone) -> PromptBuilder:
        """The prompt builder of a backbone."""
        return PromptBuilder(backbone, self.items.semantic_ids.resolved, self.config.prompts)

    def generative(self, backbone: Backbone, context: Context) -> GenerativeRecommender:
        """A backbone as a recommender."""
        asked = self.config.prediction
        return GenerativeRecommender(
            backbone,
            self.prompts(backbone),
            self.trie,
            context,
            asked.batch_size,
            certified=asked.certified,
            budget=asked.node_budget,
            normalise=asked.normalise,
        )

    def validation_fhr(self, backbone: Backbone, context: Context) -> float:
        """FHR@K of a backbone on the anchors of `validation`, K being ``evaluation.top_k``."""
        return self.fhr(self.generative(backbone, context), self.validation, self.config.evaluation.top_k)

    def fhr(self, model: Recommender, anchors: Anchors, k: int) -> float:
        """FHR@K of a model on anchors of this run, at least one."""
        eligible = self.config.protocol.history_eligible
        ranking = model.predict(self.prepared.log, anchors.queries, k, history_eligible=eligible)
        return float(fhr(ranking.item, anchors.future_negatives).mean())

    def backbone(self, name: str) -> Backbone:
        """The trained backbone of a model."""
        return self.backbone_in(self.folder / "models" / name / "model")

    def backbone_in(self, folder: Path) -> Backbone:
        """A trained backbone of this run's semantic IDs, wherever it lies."""
        backbone = load_backbone(folder, self.items.semantic_ids.sizes, device_of(self.config))
        backbone.model.eval()
        return replace(backbone, precision=self.config.run.precision, lora=self.config.backbone.lora)

    def section(self, *names: str) -> dict[str, object]:
        """JSON of some sections of the configuration (``a.b``: b of section a), with what else changes results.

        That is, to the bit: seed, threads, device, precision; and the hashes of models that lie in folders.
        """
        run = self.config.run
        picked = {name: _as_json(attrgetter(name)(self.config)) for name in names}
        encoder = self.config.encoder
        used = {
            "backbone": {"": self.config.backbone.name},
            "encoder": {"": encoder.model, "image ": encoder.image.model},
        }
        for name in names:
            for which, folder in used.get(name, {}).items():
                if folder and Path(folder).is_dir():
                    picked[f"{name} {which}files"] = hash_file(Path(folder))
            if name == "encoder" and encoder.image.model and encoder.image.folder is not None:
                picked["images"] = _list_of_files(encoder.image.folder)
        machine = {"threads": torch.get_num_threads(), "device": device_of(self.config), "precision": run.precision}
        return {**picked, "seed": run.seed, **machine}

"""Training of the rows of the table that learn: what each starts from, and on what it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from conrec.artefacts import write_json
from conrec.baselines.language.tuned import tuned_on
from conrec.baselines.registry import baseline_class
from conrec.config import Context, GrpoStageConfig
from conrec.folders import replacing_folder
from conrec.llm.backbone import Backbone, build_backbone
from conrec.llm.checkpoints import Checkpoints
from conrec.llm.course import Curve
from conrec.llm.curriculum import RewardSamples, Stage, clean, draw_samples
from conrec.llm.grpo_stage import train_stage
from conrec.llm.prompts import INSTRUCTIONS, Stretch
from conrec.llm.rewards import Similarity, reward_of
from conrec.llm.samples import (
    Choices,
    alignment_choices,
    alignment_stretches,
    high_confidence,
    history_stretches,
    translation_stretches,
)
from conrec.llm.sft import train_supervised
from conrec.llm.tree import check_tree
from conrec.llm.watch import Watch
from conrec.processes import ALONE, Processes
from conrec.seeds import derive, generator
from conrec.watched import Watched
from conrec.workspace import Workspace, device_of

__all__ = ["Trainer", "held_out_choices", "unfinished"]


VALIDATION_SAMPLES = 256
"""Contexts of the validation period on which the reward of a GRPO stage is followed."""


def unfinished(name: str) -> str:
    """Folder in which the training of a model keeps its checkpoints, relative to the run."""
    return f"models/{name}.unfinished"


def held_out_choices(space: Workspace) -> Choices:
    """Four-way choices from the test period; nothing was learned or selected on them."""
    periods, log = space.prepared.periods, space.prepared.log
    sure = high_confidence(log.before(periods.validation), space.config.alignment.disliked_by_more_than)
    rng = generator(space.config.run.seed, "held-out choices")
    return alignment_choices(log, periods.test, periods.end, sure, space.config.alignment.held_out, rng)


class Trainer:
    """Trains one model after another into ``models/NAME``.

    Args:
        space: the run.
        processes: those that share the GRPO stages.
    """

    def __init__(self, space: Workspace, processes: Processes = ALONE) -> None:
        self.space = space
        self.config = space.config
        self.processes = processes

    def seed(self, *purpose: str | int) -> int:
        """A seed of this run for a purpose."""
        return derive(self.config.run.seed, *purpose)

    def baseline(self, name: str) -> None:
        """A row of `conrec.baselines.registry`.

        Raises:
            NotApplicableError: the log lacks what the row needs.
        """
        model = baseline_class(name).fit(self.space, name)
        with replacing_folder(self.space.folder / "models" / name) as folder:
            (folder / "model").mkdir()
            model.save(folder / "model")
            write_json(folder / "curve.json", model.curve)

    def translation(self, name: str) -> None:
        """A new backbone, trained to translate between semantic IDs and titles."""
        space, config = self.space, self.config.translation
        items = np.flatnonzero(space.trained_items)
        titles = [space.titles[item] for item in items]
        backbone = build_backbone(
            self.config.backbone, space.items.semantic_ids.sizes, titles, INSTRUCTIONS, self.seed("backbone")
        )
        backbone.model.to(device_of(self.config))
        prompts = space.prompts(backbone)
        if self.config.backbone.name is not None:
            check_tree(backbone, prompts.longest)
        # Adapters on weights that were only drawn would teach nothing: such a model is tuned whole in this stage.
        lora = self.config.backbone.lora if self.config.backbone.name is not None else None
        backbone = replace(backbone, precision=self.config.run.precision, lora=lora)
        curve = train_supervised(
            backbone,
            translation_stretches(prompts, space.titles, items),
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=self.seed(name),
            description="translation",
            checkpoints=self._checkpoints(name),
        )
        self._save(name, backbone, curve)

    def alignment(self, name: str, start: str) -> None:
        """Item-level alignment on four-way choices of the training period."""
        space, config = self.space, self.config.alignment
        backbone = space.backbone(start)
        log, end = space.prepared.log, space.prepared.periods.validation
        sure = high_confidence(log.before(end), config.disliked_by_more_than)
        rng = generator(self.config.run.seed, "alignment choices")
        choices = alignment_choices(log, None, end, sure, config.samples, rng)
        curve = train_supervised(
            backbone,
            alignment_stretches(space.prompts(backbone), choices),
            epochs=1,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=self.seed(name),
            description="item-level alignment",
            checkpoints=self._checkpoints(name),
        )
        self._save(name, backbone, curve)

    def next_negative(self, name: str, start: str) -> None:
        """Warm-up SFT on next-negative samples, with and without likes in between."""
        space = self.space
        backbone = space.backbone(start)
        prompts, data = space.prompts(backbone), space.prepared
        stretches: list[Stretch] = []
        for rng in self._passes(name, self.config.sft.epochs):
            stretches += history_stretches(prompts, data.log, data.periods.validation, "negative", rng)
            stretches += history_stretches(prompts, data.log, data.periods.validation, "both", rng)
        context, checkpoints = self.config.prediction.context, self._checkpoints(name)
        self._save(name, backbone, tuned_on(space, name, backbone, stretches, context, checkpoints))

    def _passes(self, name: str, epochs: int) -> list[np.random.Generator]:
        """A source of chance for each epoch."""
        return [generator(self.config.run.seed, name, "pass", epoch) for epoch in range(epochs)]

    def grpo(self, name: str, start: str, number: int) -> None:
        """One stage of Progressive GRPO (counted from 0); the model it starts from is the reference and the cleaner.

        All processes work on it, and the first one writes.
        """
        space, config, processes = self.space, self.config.grpo, self.processes
        stage_config: GrpoStageConfig = config.stages[number]
        backbone = space.backbone(start)
        stage = Stage(
            space.prepared.log,
            space.prompts(backbone),
            space.trie,
            reward_of(config, space.rebuilt, space.trie, space.trained_items),
            stage_config.context,
            self.config.protocol.history_eligible,
        )
        anchors = space.dislikes("train", self._horizon_days)
        seed = self.seed(name)
        samples = draw_samples(
            anchors, space.targets, stage.prompts, stage.log, stage_config.context, stage_config.samples, seed
        )
        judged = self._validation_samples(stage, seed)
        notes: dict[str, int] = {"samples": len(samples), "validation_samples": len(judged)}
        if config.clean and number > 0:
            size = config.micro_batch_size or config.batch_size
            cosine = Similarity(space.rebuilt)
            samples, notes["augmented"] = clean(
                backbone, stage, samples, cosine, config.clean_similarity, size, processes
            )
        title = f"GRPO {number + 1}"
        curve = train_stage(
            backbone,
            None,
            stage,
            samples,
            judged,
            config,
            stage_config,
            seed,
            title,
            processes,
            watch=self._watch(backbone, number),
            checkpoints=self._checkpoints(name),
        )
        if processes.first:
            self._save(name, backbone, curve, notes)

    def _watch(self, backbone: Backbone, number: int) -> Watch | None:
        """What a stage is held to on the dislikes of the validation period, see `grpo.watched`."""
        config = self.config.grpo
        if not config.watched:
            return None
        contexts: list[Context] = [stage.context for stage in config.stages[:number][-1:]]
        contexts = list(dict.fromkeys([config.stages[number].context, *(contexts or [self.config.prediction.context])]))
        measure, k = Watched(self.space, contexts, config.watched), self.config.evaluation.top_k
        kept = tuple(f"validation_fhr@{k} {context}" for context in contexts)
        return Watch(
            lambda: measure(backbone),
            kept=kept if config.keep == "best" else (),
            held=kept if config.kl_rule == "hold" else (),
            tolerance=config.kl_tolerance,
            widths=tuple(f"items_in_lists {context}" for context in contexts),
            narrowest=config.narrowest,
        )

    def _checkpoints(self, name: str) -> Checkpoints:
        """Those of one training; none where the configuration wants none."""
        minutes = self.config.run.checkpoint_minutes
        folder = None if minutes is None else self.space.folder / unfinished(name)
        return Checkpoints(folder, 60.0 * (minutes or 0.0), writes=self.processes.first)

    @property
    def _horizon_days(self) -> int:
        """Length of the windows that GRPO learns from."""
        return self.config.grpo.horizon_days or self.config.protocol.horizon_days

    def _validation_samples(self, stage: Stage, seed: int) -> RewardSamples:
        """Contexts of the validation period that show something, see `Workspace.dislikes`."""
        anchors, targets = self.space.dislikes("validation", self._horizon_days), self.space.targets
        return draw_samples(anchors, targets, stage.prompts, stage.log, stage.context, VALIDATION_SAMPLES, seed)

    def _save(self, name: str, backbone: Backbone, curve: Curve, notes: Mapping[str, object] | None = None) -> None:
        target: Path = self.space.folder / "models" / name
        with replacing_folder(target) as folder:
            backbone.save(folder / "model")
            write_json(folder / "curve.json", curve.series)
            if notes is not None:
                write_json(folder / "notes.json", notes)

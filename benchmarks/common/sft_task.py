"""The same next-negative samples trained by our stretches of history, and a row a sample by `transformers.Trainer`.

A sample is a dislike of the training period with the history before it, once without likes and once with them, as
the warm-up of `conrec run` trains them. Weights, batch size, optimiser and precision are the same, and the
schedule but for where its cosine ends (ours at a tenth).
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from common.catalogue import draw_codes
from conrec.arrays import Array
from conrec.config import BackboneConfig, Config, DataConfig, PromptConfig, SftConfig
from conrec.llm.backbone import Backbone, build_backbone
from conrec.llm.prompts import INSTRUCTIONS, PromptBuilder, Stretch, answered
from conrec.llm.samples import history_stretches
from conrec.llm.sft import WARM_UP, train_supervised
from conrec.logs.log import Log
from conrec.logs.prepare import Prepared, prepare, read_prepared
from conrec.logs.sources import Loaded, load
from conrec.protocol import NEGATIVE
from conrec.seeds import generator

__all__ = ["Counter", "Task", "Tasked", "by_stretches", "by_trainer", "samples_in_both_forms", "target_losses"]

CODEBOOK = 64
CONTEXTS: tuple[Literal["negative", "both"], ...] = ("negative", "both")


@dataclass(frozen=True, slots=True)
class Task:
    """The configuration.

    Attributes:
        users: of the log, a seeded draw; all where None. Periods are those of the whole log.
        sizes: of the model.
        batch_size: rows of a step.
        device, precision: where and in which numbers.
    """

    users: int | None
    sizes: BackboneConfig = field(default_factory=BackboneConfig)
    batch_size: int = SftConfig().batch_size
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"


class _Recorder(PromptBuilder):
    """A prompt builder that remembers which events its stretches train."""

    def __init__(self, backbone: Backbone, codes: Array, config: PromptConfig) -> None:
        super().__init__(backbone, codes, config)
        self.trained: list[int] = []

    def history(self, log: Log, events: Array, trained_from: int = 0, signs: Sequence[int] = (NEGATIVE,)) -> Stretch:
        """As ever, and the trained events are kept."""
        stretch = super().history(log, events, trained_from, signs)
        width = 1 + len(self.backbone.sizes)
        first_codes = stretch.target[len(stretch.ids) - width * len(events) + 1 :: width]
        self.trained += [int(event) for event, trained in zip(events, first_codes, strict=True) if trained]
        return stretch


class Tasked:
    """The log, the model before training, and its samples in both forms.

    Attributes:
        initial: the backbone that both start from.
        stretches: one pass of ours.
        rows: for every sample of ``stretches``, in their order, its prompt and answer as a row of its own.
    """

    def __init__(self, task: Task, loaded: Loaded | None = None) -> None:
        self.task = task
        prepared = _prepared(loaded or load(DataConfig(source="ml-100k")))
        self.log, self.end = _of_some(prepared.log, task.users), prepared.periods.validation
        titles = prepared.items["title"].to_pylist()
        backbone = build_backbone(task.sizes, CODEBOOK, titles, INSTRUCTIONS, 0)
        backbone.model.to(task.device)
        self.initial = replace(backbone, precision=task.precision)
        self.codes = draw_codes(self.log.n_items, CODEBOOK, seed=0).numpy()
        self.prompts = PromptBuilder(self.initial, self.codes, PromptConfig())
        self.stretches, self.rows = self._both_forms()
        self.samples = len(self.rows)

    def cut(self) -> list[Stretch]:
        """One pass over the log: what the stage does before every epoch."""
        drawn = ((context, _chance()) for context in CONTEXTS)
        return [one for given in drawn for one in history_stretches(self.prompts, self.log, self.end, *given)]

    def _both_forms(self) -> tuple[list[Stretch], list[Stretch]]:
        recorder = _Recorder(self.initial, self.codes, PromptConfig())
        log = self.log
        stretches, rows = [], []
        for context in CONTEXTS:
            recorder.trained = []
            stretches += history_stretches(recorder, log, self.end, context, _chance())
            for event in recorder.trained:
                user, moment, item = int(log.user[event]), int(log.timestamp[event]), int(log.item[event])
                prompt = self.prompts.next_negative(log, user, moment, context)
                rows.append(answered(prompt, self.prompts.sid(item)))
        return stretches, rows


class Counter:
    """What passes through a model's decoder, padding apart."""

    def __init__(self) -> None:
        self.places = self.tokens = self.passes = 0

    @contextlib.contextmanager
    def watch(self, backbone: Backbone) -> Iterator[None]:
        """Count within."""
        hook = backbone.model.get_decoder().register_forward_pre_hook(self._count, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _count(self, module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        mask = named["attention_mask"]
        self.places += mask.numel()
        self.tokens += int(mask.sum())
        self.passes += 1

    @property
    def padding(self) -> float:
        """Share of all places."""
        return 1 - self.tokens / self.places


def by_stretches(tasked: Tasked, counter: Counter | None = None) -> Backbone:
    """One epoch of ours, the cutting of the log into stretches included."""
    backbone = tasked.initial.clone()
    with (counter or Counter()).watch(backbone):
        train_supervised(
            backbone,
            tasked.cut(),
            epochs=1,
            batch_size=tasked.task.batch_size,
            learning_rate=SftConfig().learning_rate,
            seed=0,
            description="benchmark",
        )
    return backbone


def by_trainer(
    tasked: Tasked, counter: Counter | None = None, *, grouped: bool = False, accumulated: int = 1
) -> Backbone:
    """One epoch of `transformers.Trainer` over ready rows.

    Args:
        tasked: what to train.
        counter: counts its passes.
        grouped: rows of similar length in a batch.
        accumulated: batches of a step.
    """
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainingArguments  # noqa: PLC0415

    task, backbone = tasked.task, tasked.initial.clone()
    data = [{"input_ids": row.ids, "labels": np.where(row.target, row.ids, -100).tolist()} for row in tasked.rows]
    watched = (counter or Counter()).watch(backbone)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), watched:
        warnings.simplefilter("ignore")
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=task.batch_size,
            gradient_accumulation_steps=accumulated,
            num_train_epochs=1,
            learning_rate=SftConfig().learning_rate,
            weight_decay=0.01,
            optim="adamw_torch",
            lr_scheduler_type="cosine",
            warmup_steps=max(1, round(WARM_UP * len(data) / (task.batch_size * accumulated))),
            max_grad_norm=1.0,
            train_sampling_strategy="group_by_length" if grouped else "random",
            bf16=task.precision == "bfloat16",
            use_cpu=task.device == "cpu",
            dataloader_pin_memory=False,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            log_level="error",
            disable_tqdm=True,
            seed=0,
        )
        collator = DataCollatorForSeq2Seq(backbone.tokenizer, padding=True, label_pad_token_id=-100)
        trainer = Trainer(model=backbone.model, args=settings, train_dataset=data, data_collator=collator)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    backbone.model.eval()
    return backbone


def samples_in_both_forms(tasked: Tasked) -> list[tuple[Stretch, int, Stretch]]:
    """For every sample its stretch, the place of its first code therein, and its own row."""
    levels = len(tasked.initial.sizes)
    places = [(one, place) for one in tasked.stretches for place in np.flatnonzero(one.target)[::levels].tolist()]
    return [(stretch, place, row) for (stretch, place), row in zip(places, tasked.rows, strict=True)]


@torch.no_grad()
def target_losses(backbone: Backbone, sequence: Sequence[int], place: int) -> torch.Tensor:
    """Cross-entropy of the codes from ``place`` on, one of each level, float32 [levels]."""
    ids = torch.tensor([list(sequence)], device=backbone.device)
    levels = len(backbone.sizes)
    logits = backbone.model(input_ids=ids, use_cache=False).logits[0, place - 1 : place - 1 + levels].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, place : place + levels], reduction="none")


def _prepared(loaded: Loaded) -> Prepared:
    """A log under the default protocol."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Config(), Path(folder), loaded)
        return read_prepared(Path(folder))


def _of_some(log: Log, users: int | None) -> Log:
    """The events of so many users, drawn with a seed; all where None."""
    if users is None:
        return log
    chosen = generator(0, "benchmark", "users").choice(log.n_users, users, replace=False)
    kept = np.isin(log.user, chosen)
    columns = log.user[kept], log.item[kept], log.timestamp[kept], log.feedback[kept]
    return Log.from_columns(log.user_ids, log.item_ids, *columns)


def _chance() -> np.random.Generator:
    """The same order within a second in every pass, so that rows made once are the samples of all."""
    return np.random.default_rng(0)

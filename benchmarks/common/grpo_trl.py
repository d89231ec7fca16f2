"""The same step by TRL's GRPOTrainer, set as fast as it goes: no checkpointing, no logging, no files.

TRL samples through `generate` of the model that it trains; that one call is given a logits processor with the trie
and each prompt's blocked items, so that its rollouts are eligible items, as ours are. TRL takes the log-probabilities
of its loss over the whole vocabulary, not over what is allowed: that is the loss it has, and it costs about the same.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from common.grpo_task import KL_WEIGHT, LEARNING_RATE, Task
from common.models import random_prompts
from common.peers import TrieProcessor

__all__ = ["run_trl"]


def run_trl(
    task: Task,
    steps: int,
    after_step: Callable[[float], None],
    *,
    before_step: Callable[[], object] | None = None,
    rows: int | None = None,
) -> None:
    """Train for some steps.

    Args:
        task: the configuration.
        steps: optimiser steps.
        after_step: called with the seconds of each step, between steps.
        before_step: called before the clock of each step runs.
        rows: prompts that one forward and backward pass takes, the rest by accumulation; all by default.
    """
    rows = rows or task.prompts
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = task.model()
        model = Path(folder) / "model"
        policy.model.save_pretrained(model)
        tokenizer = _tokenizer(task)
        tokenizer.save_pretrained(model)
        settings = GRPOConfig(
            output_dir=str(Path(folder) / "output"),
            per_device_train_batch_size=rows * task.group,
            gradient_accumulation_steps=task.prompts // rows,
            num_generations=task.group,
            max_completion_length=3,
            max_steps=steps,
            beta=KL_WEIGHT,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            loss_type="grpo",
            temperature=1.0,
            top_k=0,
            max_grad_norm=1.0,
            gradient_checkpointing=False,
            bf16=task.dtype == torch.bfloat16,
            use_cpu=task.device == "cpu",
            dataloader_pin_memory=False,
            shuffle_dataset=False,
            logging_strategy="no",
            log_level="error",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            model_init_kwargs={"dtype": "float32"},
        )
        trainer = GRPOTrainer(
            model=str(model),
            reward_funcs=_reward(task, policy.code_offset),
            args=settings,
            train_dataset=_dataset(task, random_prompts(policy, task.prompts, task.prompt, seed=1), steps),
            processing_class=tokenizer,
            callbacks=[_Clock(task.device, after_step, before_step)],
        )
        device = next(trainer.model.parameters()).device
        processor = TrieProcessor(task.codes(), task.sizes.codebook, policy.code_offset, device)
        generate = trainer.model.generate
        trainer.model.generate = functools.partial(generate, **processor.settings(task.prompt, task.gone()))
        del policy
        with contextlib.redirect_stdout(io.StringIO()):  # a summary of its own
            trainer.train()


class _Clock(TrainerCallback):
    """Seconds from the beginning of an optimiser step, rollouts included, to its end."""

    def __init__(
        self, device: str, after_step: Callable[[float], None], before_step: Callable[[], object] | None
    ) -> None:
        self.device, self.after_step, self.before_step, self.begin = device, after_step, before_step, 0.0

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self.before_step is not None:
            self.before_step()
        self.begin = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.after_step(self._now() - self.begin)


def _tokenizer(task: Task) -> Any:
    """One word a token: t17 is token 17."""
    vocabulary = {f"t{number}": number for number in range(task.sizes.text + 2 + 3 * task.sizes.codebook)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="t0", eos_token="t0", unk_token="t0")


def _dataset(task: Task, prompts: Tensor, steps: int) -> Dataset:
    """The prompts of a step, once for each step."""
    texts = [" ".join(f"t{token}" for token in row) for row in prompts.tolist()]
    return Dataset.from_dict(
        {"prompt": texts * steps, "target": task.targets() * steps, "row": [*range(task.prompts)] * steps}
    )


def _reward(task: Task, offsets: tuple[int, ...]) -> Callable[..., list[float]]:
    """The reward of `common.grpo_task` for TRL's lists of tokens."""
    catalogue = {tuple(row): number for number, row in enumerate(task.codes().tolist())}
    vectors = task.vectors()
    gone = [set(row) for row in task.gone().tolist()]

    def similarity(completion_ids: list[list[int]], target: list[int], row: list[int], **_: Any) -> list[float]:
        items = [
            catalogue[tuple(token - offset for token, offset in zip(tokens, offsets, strict=True))]
            for tokens in completion_ids
        ]
        if any(item in gone[number] for item, number in zip(items, row, strict=True)):
            raise ValueError("a rollout is a blocked item of its prompt")
        found: list[float] = (vectors[items] * vectors[target]).sum(1).tolist()
        return found

    return similarity

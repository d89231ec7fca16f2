"""Supervised fine-tuning on next-negative samples against `transformers.Trainer`: speed, memory, and the same loss.

Claims: `speedup_over_trainer` (seconds of the Trainer's epoch by ours, over the same samples: the ratio of trained
tokens a second, at least 3), `peak_memory_over_trainer` (ours by the Trainer's, at most 1) and
`largest_loss_difference` (between a sample in a stretch and in a row of its own, where both show the same history, at
most 1e-4). On MovieLens-100K under the default protocol, with the default model (Qwen3, hidden 192, 4 layers) and the
default batch of 16 rows.

Ours trains on stretches of up to 40 events and learns every dislike in one at once; the Trainer has a row a sample, its
prompt padded on the right to the longest of the batch. What a stretch shows before a sample is at least half of what
its prompt shows, and often less than all of it: that is the price, and how much is shown is among the figures.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from common.harness import Report, arguments, take_turns
from common.machine import machine
from common.memory import Peak, alone
from common.sft_task import Counter, Task, Tasked, by_stretches, by_trainer, samples_in_both_forms, target_losses
from conrec.llm.backbone import Backbone
from conrec.llm.prompts import Stretch
from conrec.llm.sft import _batches

PARTS = ("main", "loss", "padding", "memory")
VARIANTS = ("", "grouped", "same-steps")
"""The Trainer with random batches, with rows of similar length in a batch, and so with as many steps as ours."""
CHECKED = 64
"""Samples whose loss is compared."""

Pair = tuple[Stretch, int, Stretch]
"""A sample's stretch, its place therein, and its own row."""


def has_trainer(report: Report) -> bool:
    """Whether the Trainer can run here; a note where it cannot."""
    found = importlib.util.find_spec("accelerate") is not None
    if not found:
        report.note("the Trainer is left out, accelerate is not installed: pip install 'conrec[bench]'")
    return found


def race(report: Report, tasked: Tasked, turns: int) -> None:
    """Epochs of all in turns; what is counted is the same in each of them."""
    task = tasked.task
    report.heading(f"main: {task.users} users, {tasked.samples} samples in {len(tasked.stretches)} stretches")
    counters = {"ours": Counter()}
    things = {"ours": partial(by_stretches, tasked, counters["ours"])}
    if has_trainer(report):
        steps = -(-len(tasked.stretches) // task.batch_size)
        accumulated = max(1, round(tasked.samples / task.batch_size / steps))
        for variant in VARIANTS:
            name = f"trainer/{variant}".rstrip("/")
            counters[name] = Counter()
            settings = {"grouped": bool(variant), "accumulated": accumulated if variant == "same-steps" else 1}
            things[name] = partial(by_trainer, tasked, counters[name], **settings)
    # An epoch of the Trainer is long, and has warmed up after its first batches.
    calls = {name: 3 if name == "ours" else 1 for name in things}
    found = take_turns(things, turns, calls=calls, warm={name: name == "ours" for name in things}, device=task.device)
    targets = tasked.samples * len(tasked.initial.sizes)
    for name, counter in counters.items():
        epochs = turns * calls[name] + (name == "ours")
        seconds = found.spread(name)
        report.figure(f"seconds/{name}", seconds)
        report.figure(f"samples_per_second/{name}", tasked.samples / seconds.median)
        report.figure(f"trained_tokens_per_second/{name}", targets / seconds.median)
        report.figure(f"read_tokens_per_second/{name}", counter.tokens / epochs / seconds.median)
        report.figure(f"read_tokens_per_sample/{name}", counter.tokens / epochs / tasked.samples)
        report.figure(f"padding_share/{name}", counter.padding)
    for variant in VARIANTS:
        name, claim = (f"{one}/{variant}".rstrip("/") for one in ("trainer", "speedup_over_trainer"))
        measured = name in things
        if measured:
            report.figure(claim, found.ratio(name, "ours"))
        value = found.ratio(name, "ours").median if measured else float("nan")
        report.claim(claim, value, at_least=3, runs=turns if measured else 0)


def loss(report: Report, tasked: Tasked) -> None:
    """The loss of each code of some samples in both forms, after an epoch."""
    samples = samples_in_both_forms(tasked)
    levels = len(tasked.initial.sizes)
    same = [one for one in samples if one[0].ids[: one[1] + levels] == one[2].ids]
    report.heading("loss: a sample in its stretch and in a row of its own, after an epoch of ours")
    shown = [place / (len(row.ids) - levels) for _, place, row in samples]
    report.figure("share_of_samples_that_show_the_same", len(same) / len(samples))
    report.figure("shown_tokens_over_those_of_the_prompt", float(np.mean(shown)))
    report.figure("shown_tokens_over_those_of_the_prompt, least", float(np.min(shown)))
    backbone = by_stretches(tasked)
    report.claim("largest_loss_difference", largest(backbone, _some(same)), at_most=1e-4, runs=1)
    report.figure("samples_compared", len(_some(same)))
    # That rounding is all there is means something only where another history would be seen.
    others = [one for one in samples if one[0].ids[: one[1] + levels] != one[2].ids]
    report.figure("largest_loss_difference, histories not the same", largest(backbone, _some(others)))


def _some(samples: list[Pair]) -> list[Pair]:
    return [samples[one] for one in np.random.default_rng(0).permutation(len(samples))[:CHECKED].tolist()]


def largest(backbone: Backbone, samples: list[Pair]) -> float:
    """The largest difference of a code's loss between the two forms."""
    levels = len(backbone.sizes)
    found = [
        target_losses(backbone, stretch.ids, place) - target_losses(backbone, row.ids, len(row.ids) - levels)
        for stretch, place, row in samples
    ]
    return float(torch.stack(found).abs().max())


def padding(report: Report, tasked: Tasked) -> None:
    """Padding of ours, and the tokens that either reads, in an epoch over the users; nothing is trained."""
    lengths = [len(one.ids) for one in tasked.stretches]
    plan = _batches(tasked.stretches, tasked.task.batch_size, np.random.default_rng(0))
    places = sum(len(batch) * max(lengths[row] for row in batch) for batch in plan)
    report.heading(f"padding: {tasked.task.users or 'all'} users, {len(lengths)} stretches")
    report.figure("padding_share/ours, all users", 1 - sum(lengths) / places)
    report.figure("read_tokens_per_sample/ours, all users", sum(lengths) / tasked.samples)
    rows = sum(len(row.ids) for row in tasked.rows)
    report.figure("read_tokens_per_sample/trainer, all users", rows / tasked.samples)


def memory_of_ours(threads: int, task: Task) -> float:
    """MiB of an epoch of ours."""
    torch.set_num_threads(threads)
    tasked = Tasked(task)
    peak = Peak(task.device)
    by_stretches(tasked)
    return peak.mebibytes()


def memory_of_trainer(threads: int, task: Task) -> float:
    """MiB of an epoch of the Trainer."""
    import accelerate  # noqa: F401, PLC0415 - modules are not counted
    from transformers import Trainer  # noqa: F401, PLC0415

    torch.set_num_threads(threads)
    tasked = Tasked(task)
    peak = Peak(task.device)
    by_trainer(tasked)
    return peak.mebibytes()


def memory(report: Report, task: Task) -> None:
    """Peak memory of an epoch, the copy of the weights included, each in a process of its own."""
    report.heading(f"memory: peak of an epoch of {task.users} users above what the process held before it, MiB")
    ours = trainer = float("nan")
    try:
        ours = alone(memory_of_ours, task)
        if importlib.util.find_spec("accelerate") is not None:
            trainer = alone(memory_of_trainer, task)
    except OSError as error:
        report.note(f"memory is left out: {error}")
    report.figure("peak_mebibytes_ours", ours)
    report.figure("peak_mebibytes_trainer", trainer)
    value = ours / trainer
    report.claim("peak_memory_over_trainer", value, at_most=1, runs=0 if np.isnan(value) else 1)


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("sft", given.quick)
    described = machine(given.device)
    precision = "bfloat16" if given.dtype == torch.bfloat16 else "float32"
    task = Task(users=50, device=given.device, precision=precision)
    turns = 3
    if given.quick:
        task, turns = replace(task, users=4), 1
        report.note("quick: 4 users for 50 (memory: for 8), one turn")
    report.runs = turns
    tasked = Tasked(task)
    if given.wants("main"):
        race(report, tasked, turns)
    if given.wants("loss"):
        loss(report, tasked)
    if given.wants("padding"):
        padding(report, Tasked(replace(task, users=None)))
    if given.wants("memory"):
        memory(report, replace(task, users=4 if given.quick else 8))
    report.finish(described, given.json)


if __name__ == "__main__":
    main()

"""One optimiser step of GRPO, rollouts included, against TRL's GRPOTrainer and against what no step can do without.

Claims: `speedup_over_trl`, `time_over_bound` (one forward pass without gradient for the rollouts and one for the
reference, one forward and backward, on one copy of the prompts and of the distinct nodes) and
`gradient_relative_error` (against the plain form with one row a rollout, as a norm). Peak memory is shown for all.
Configuration: Qwen3 of hidden 256 and 4 layers, 3 x 256 codes, 3,000 items of which 50 are blocked for each prompt,
8 prompts of 240 tokens, 16 rollouts each.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import torch

from common.grpo_task import Bound, Ours, Task, distinct_nodes, plain_gradient, tree_gradient
from common.harness import Report, Turns, arguments, take_turns
from common.machine import machine
from common.memory import Peak, alone

PARTS = ("main", "prompts-16", "gumbel", "gradient", "memory")
CALLS = 3
"""How often ours and the bound run between two steps of TRL."""


def race(report: Report, task: Task, name: str, steps: int, rows: int | None = None) -> None:
    """Steps of TRL, and between each two some of ours and of the bound."""
    suffix = f"/{name}" if name else ""
    report.heading(f"{name or 'main'}: {task.prompts} prompts of {task.prompt} tokens, {task.group} rollouts each")
    ours = Ours(task)
    bound = Bound(ours)
    report.figure(f"distinct_nodes{suffix}", bound.nodes)
    things = {"ours": ours, "bound": bound}
    if not name:
        things["unblocked"] = Ours(replace(task, blocked=0))
    calls = dict.fromkeys(things, CALLS)
    seconds: dict[str, list[list[float]]] = {one: [] for one in ("trl", *things)}
    for thing in things.values():
        thing()

    def between(trl: float) -> None:
        turns = take_turns(things, 1, calls=calls, warm=dict.fromkeys(things, False), device=task.device)
        for one, found in {"trl": [[trl]], **turns.seconds}.items():
            seconds[one].append(list(found[0]))

    has_trl = importlib.util.find_spec("trl") is not None
    if has_trl:
        from common.grpo_trl import run_trl  # noqa: PLC0415 - a peer that need not be installed

        run_trl(task, steps + 1, between, rows=rows)
        # The first step of TRL is its warm-up, and what ran after it ours.
        seconds = {one: found[1:] for one, found in seconds.items()}
    else:
        report.note("TRL is left out, it is not installed: pip install 'conrec[bench]'")
        for _ in range(steps):
            between(float("nan"))
    turns = Turns(seconds)
    speedup, over = turns.ratio("trl", "ours"), turns.ratio("ours", "bound")
    report.claim(f"speedup_over_trl{suffix}", speedup.median, at_least=12, runs=steps if has_trl else 0)
    report.claim(f"time_over_bound{suffix}", over.median, at_most=1.4, runs=steps)
    if has_trl:
        report.figure(f"speedup_over_trl{suffix}", speedup)
        report.figure(f"seconds_trl{suffix}", turns.spread("trl"))
    report.figure(f"time_over_bound{suffix}", over)
    for one in things:
        report.figure(f"seconds_{one}{suffix}", turns.spread(one))
    if not name:
        report.figure("blocked_over_unblocked", turns.ratio("ours", "unblocked"))
        report.runs = steps


def gumbel(report: Report, task: Task, steps: int) -> None:
    """Rollouts without replacement: the same number of distinct items, at what cost."""
    report.heading("gumbel: the same step with rollouts drawn without replacement")
    drawn = Ours(task, rollouts="gumbel")
    bound = Bound(drawn)
    things = {"gumbel": drawn, "ours": Ours(task), "bound": bound}
    turns = take_turns(things, steps, calls=dict.fromkeys(things, CALLS), device=task.device)
    report.claim("time_over_bound/gumbel", turns.ratio("gumbel", "bound").median, at_most=1.4, runs=steps)
    report.figure("time_over_independent_rollouts/gumbel", turns.ratio("gumbel", "ours"))
    report.figure("distinct_nodes/gumbel", bound.nodes)


def gradient(report: Report, task: Task) -> None:
    """The gradient of a step against the plain form's, in two precisions."""
    report.heading(f"gradient: {task.prompts} prompts, against one row a rollout")
    for dtype, name in ((torch.float32, "gradient_relative_error"), (torch.float64, "gradient_relative_error/float64")):
        ours = Ours(replace(task, dtype=dtype))
        ours.optimiser = torch.optim.SGD(ours.policy.model.parameters(), lr=0.0)
        plain = plain_gradient(ours)
        found = tree_gradient(ours)
        squares = sum(float((one - two).double().square().sum()) for one, two in zip(plain, found, strict=True))
        norm = sum(float(one.double().square().sum()) for one in plain)
        report.claim(name, (squares / norm) ** 0.5, at_most=1e-5, runs=1)


def memory_of_ours(threads: int, task: Task) -> float:
    """MiB of one step of ours."""
    torch.set_num_threads(threads)
    ours = Ours(task)
    peak = Peak(task.device)
    ours()
    return peak.mebibytes()


def memory_of_bound(threads: int, task: Task, nodes: int) -> float:
    """MiB of the bound at its first step, with so many nodes a prompt: to draw them here would use memory before."""
    torch.set_num_threads(threads)
    bound = Bound(Ours(task), nodes)
    peak = Peak(task.device)
    bound()
    return peak.mebibytes()


def memory_of_trl(threads: int, task: Task) -> float:
    """MiB of one step of TRL."""
    from common.grpo_trl import run_trl  # noqa: PLC0415 - a peer that need not be installed

    torch.set_num_threads(threads)
    found: list[float] = []
    peaks: list[Peak] = []
    run_trl(task, 1, lambda _: found.append(peaks[0].mebibytes()), before_step=lambda: peaks.append(Peak(task.device)))
    return found[0]


def memory(report: Report, task: Task) -> None:
    """Peak memory of one step above what was held before it, each in a process of its own."""
    report.heading("memory: peak of the first step above what the process held before it, MiB")
    nodes = distinct_nodes(Ours(task))
    try:
        found = {"ours": alone(memory_of_ours, task), "bound": alone(memory_of_bound, task, nodes)}
        if importlib.util.find_spec("trl") is not None:
            found["trl"] = alone(memory_of_trl, task)
    except OSError as error:
        report.note(f"memory is left out: {error}")
        return
    for name, value in found.items():
        report.figure(f"peak_mebibytes_{name}", value)
    if "trl" in found:
        report.figure("peak_memory_trl_over_ours", found["trl"] / found["ours"])


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("grpo", given.quick)
    described = machine(given.device)
    task = Task(device=given.device, dtype=given.dtype)
    steps = 3
    if given.quick:
        task, steps = replace(task, prompts=2), 1
        report.note("quick: 2 prompts for 8, 1 for gradient and memory, one step; no prompts-16")
    if given.wants("main"):
        race(report, task, "", steps)
    if given.wants("prompts-16") and not given.quick:
        # TRL holds every activation of every copy: 8 prompts at a time fit into memory.
        race(report, replace(task, prompts=16), "prompts-16", 2, rows=8)
    if given.wants("gumbel"):
        gumbel(report, task, steps)
    if given.wants("gradient"):
        gradient(report, replace(task, prompts=1 if given.quick else 4))
    if given.wants("memory"):
        memory(report, replace(task, prompts=1) if given.quick else task)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()

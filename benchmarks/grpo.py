"""One optimiser step of GRPO, rollouts included, against TRL's GRPOTrainer and against what no step can do without.

Claims: `speedup_over_trl`, `time_over_bound` (one forward pass without gradient for the rollouts and one for the
reference, one forward and backward, on one copy of the prompts and of the distinct nodes) and
`gradient_relative_error` (against the plain form with one row a rollout, as a norm). Peak memory is shown for all.
Configuration: Qwen3 of hidden 256 and 4 layers, 3 x 256 codes, 3,000 items, 8 prompts of 240 tokens, 16 rollouts each.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import torch

from common.grpo_task import Bound, Ours, Task, plain_gradient, tree_gradient
from common.harness import Report, Turns, arguments, machine, take_turns
from common.memory import Peak, alone

PARTS = ("main", "prompts-32", "gumbel", "gradient", "memory")
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
    calls = dict.fromkeys(things, CALLS)
    seconds: dict[str, list[list[float]]] = {"trl": [], "ours": [], "bound": []}

    def between(trl: float) -> None:
        first = not seconds["ours"]
        turns = take_turns(things, 1, calls=calls, warm=dict.fromkeys(things, first), device=task.device)
        for one, found in (("trl", [trl]), ("ours", turns.seconds["ours"][0]), ("bound", turns.seconds["bound"][0])):
            seconds[one].append(list(found))

    if importlib.util.find_spec("trl") is None:
        report.note("TRL is left out, it is not installed: pip install 'conrec[bench]'")
        for _ in range(steps):
            between(float("nan"))
    else:
        from common.grpo_trl import run_trl  # noqa: PLC0415 - a peer that need not be installed

        run_trl(task, steps + 1, between, rows=rows)
        # The first step of TRL is its warm-up, and what ran after it ours.
        seconds = {one: found[1:] for one, found in seconds.items()}
    turns = Turns(seconds)
    if importlib.util.find_spec("trl") is not None:
        speedup = turns.ratio("trl", "ours")
        report.claim(f"speedup_over_trl{suffix}", speedup.median, at_least=12)
        report.figure(f"speedup_over_trl{suffix}", speedup)
        report.figure(f"seconds_trl{suffix}", turns.spread("trl"))
    over = turns.ratio("ours", "bound")
    report.claim(f"time_over_bound{suffix}", over.median, at_most=1.4)
    report.figure(f"time_over_bound{suffix}", over)
    report.figure(f"seconds_ours{suffix}", turns.spread("ours"))
    report.figure(f"seconds_bound{suffix}", turns.spread("bound"))
    if not name:
        report.runs = steps


def gumbel(report: Report, task: Task, steps: int) -> None:
    """Rollouts without replacement: the same number of distinct items, at what cost."""
    report.heading("gumbel: the same step with rollouts drawn without replacement")
    things = {"gumbel": Ours(task, rollouts="gumbel"), "ours": Ours(task)}
    turns = take_turns(things, steps, calls=dict.fromkeys(things, CALLS), device=task.device)
    report.figure("time_over_independent_rollouts/gumbel", turns.ratio("gumbel", "ours"))
    bound = Bound(things["gumbel"])
    report.figure("distinct_nodes/gumbel", bound.nodes)
    turns = take_turns({"ours": things["gumbel"], "bound": bound}, steps, device=task.device)
    report.claim("time_over_bound/gumbel", turns.ratio("ours", "bound").median, at_most=1.4)


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
        report.claim(name, (squares / norm) ** 0.5, at_most=1e-5)


def memory_of_ours(threads: int, task: Task) -> float:
    """MiB of one step of ours."""
    torch.set_num_threads(threads)
    ours = Ours(task)
    peak = Peak(task.device)
    ours()
    return peak.mebibytes()


def memory_of_bound(threads: int, task: Task) -> float:
    """MiB of the bound."""
    torch.set_num_threads(threads)
    bound = Bound(Ours(task))
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


def memory(report: Report, task: Task, quick: bool) -> None:
    """Peak memory of one step above what was held before it, each in a process of its own."""
    report.heading("memory: peak of the first step above what the process held before it, MiB")
    measured = {"ours": memory_of_ours}
    if not quick:
        measured["bound"] = memory_of_bound
    if importlib.util.find_spec("trl") is not None:
        measured["trl"] = memory_of_trl
    try:
        found = {name: alone(call, task) for name, call in measured.items()}
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
        report.note("quick: 2 prompts for 8 and for 32, the latter one at a time in TRL, one step")
    if given.wants("main"):
        race(report, task, "", steps)
    if given.wants("prompts-32"):
        prompts = 2 if given.quick else 32
        # TRL holds every activation of every copy: 8 prompts at a time are what fits into 24 GiB with room for others.
        race(report, replace(task, prompts=prompts), "prompts-32", 1, rows=1 if given.quick else 8)
    if given.wants("gumbel"):
        gumbel(report, task, steps)
    if given.wants("gradient"):
        gradient(report, replace(task, prompts=1 if given.quick else 4))
    if given.wants("memory"):
        memory(report, task, given.quick)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()

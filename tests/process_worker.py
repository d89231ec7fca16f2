"""One of several processes; test_processes starts them with the name of what they do and a folder for what they found.

A whole stage of GRPO under torchrun (``learn``), words alone (``talk``), or, with ``fork``, pairs of processes that end
in one way or another.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import torch

from conrec.errors import ConrecError
from conrec.processes import Processes, joined


def talk(processes: Processes) -> dict[str, object]:
    """What the processes tell each other."""
    linear = torch.nn.Linear(2, 1)
    if not processes.first:  # the first process has no gradient at all
        linear.weight.grad = torch.tensor([[1.0, 3.0]])
    processes.sum_gradients(linear.parameters(), 0.5)
    with processes.sharing_threads():
        threads = torch.get_num_threads()
    return {
        "decided": processes.decide({"run": [1, 2]} if processes.first else "not heard"),
        "gathered": processes.gather(f"from {processes.rank}"),
        "sum": processes.all_reduce(torch.tensor([1.0, 10.0 * processes.rank])).tolist(),
        "gradient": [None if one.grad is None else one.grad.tolist() for one in linear.parameters()],
        "threads": [torch.get_num_threads(), threads],
    }


def learn(processes: Processes) -> dict[str, object]:
    """A cleaned stage of GRPO in float64: steps of 5, 5 and 1 contexts, with two updates each; on one thread."""
    from conrec.config import GrpoConfig, GrpoStageConfig  # noqa: PLC0415  (the forked pairs need none of it)
    from conrec.llm.curriculum import clean  # noqa: PLC0415
    from conrec.llm.grpo_stage import train_stage  # noqa: PLC0415
    from conrec.llm.rewards import Similarity  # noqa: PLC0415
    from tests.llm import world  # noqa: PLC0415

    torch.set_num_threads(1)
    policy = world.backbone()
    stage = world.stage(policy)
    samples = world.samples(stage)
    cleaned, augmented = clean(policy, stage, samples, Similarity(world.rebuilt()), 0.5, 8, processes)
    policy.model.double()
    config = GrpoConfig(group_size=4, batch_size=5, micro_batch_size=2, updates_per_rollout=2, evaluations=2)
    stage_config = GrpoStageConfig(context="both", kl_weight=0.1)
    curve = train_stage(
        policy,
        policy.clone(),
        stage,
        cleaned.select(np.arange(11)),
        samples,
        config,
        stage_config,
        3,
        "test",
        processes,
    ).series
    weights = torch.cat([one.detach().flatten() for one in policy.model.parameters()])
    return {
        "augmented": augmented,
        "curve": curve,
        "weights": weights[::50].tolist(),
        "hash": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
    }


def end(processes: Processes, how: str) -> None:
    """The second process ends in the middle; the first one waits for its word or its numbers. Or all ends well."""
    processes.gather()
    if how == "well":
        # The second one asks for the last word ever more rarely, and sleeps when it comes.
        time.sleep(0.55 if processes.first else 0.0)
        return
    if how == "first fails":
        if processes.first:
            time.sleep(0.55)
            raise ConrecError("no more pencils", where="the desk")
        processes.decide()
    elif processes.first:
        if "word" in how:
            processes.gather("waiting")
        else:
            processes.all_reduce(torch.ones(3))
    elif how.startswith("error"):
        raise ConrecError("no more pencils", where="the desk")
    elif how.startswith("interrupt"):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def forked(rank: int, how: str) -> None:
    """The life of one process of a pair; its message goes to stderr, as with the command line."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        with joined("cpu") as processes:
            end(processes, how)
        sys.stderr.write(f"{how}|{rank}|done|\n")
        sys.stderr.flush()
    except BaseException as error:
        sys.stderr.write(f"{how}|{rank}|{type(error).__name__}|{error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def pairs(manners: list[str]) -> None:
    """Fork a pair for each manner of ending, without a launcher that would end the other one."""
    for how in manners:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        os.environ.update(WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=str(port))
        children = [os.fork() or forked(rank, how) for rank in range(2)]
        for pid in children:
            os.waitpid(pid, 0)


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1] == "fork":
        pairs(sys.argv[2:])
    else:
        with joined("cpu") as processes:
            found = {**talk(processes), "rank": processes.rank, "world": processes.world}
            if sys.argv[1] == "learn":
                found |= learn(processes)
            (Path(sys.argv[2]) / f"{processes.rank}.json").write_text(json.dumps(found))

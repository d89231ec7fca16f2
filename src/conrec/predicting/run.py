"""``conrec predict``: from a trained run and a list of users to a folder of shards, in one process or several."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from conrec.errors import ConfigError
from conrec.predicting.job import PredictJob
from conrec.predicting.plan import Plan
from conrec.predicting.predictor import Predictor
from conrec.predicting.shards import write_shards
from conrec.predicting.users import all_users, users_of_file
from conrec.processes import Processes, joined
from conrec.progress import console
from conrec.workspace import device_of

__all__ = ["PredictSummary", "predict_users"]


@dataclass(frozen=True, slots=True)
class PredictSummary:
    """What `predict_users` did.

    Attributes:
        folder: where the shards lie.
        before: shards of these processes that were finished before.
        written: shards that they wrote.
        missing: shards of the folder that are still not there; other processes may be at them.
        shards: how many there will be.
        users: questions of all shards together.
        k: items that each was asked for.
        short: questions of these processes' shards with fewer than k items in their answer.
    """

    folder: Path
    before: int
    written: int
    missing: int
    shards: int
    users: int
    k: int
    short: int

    def lines(self) -> list[str]:
        """What was done, for a reader."""
        questions = "1 question" if self.users == 1 else f"{self.users:,} questions"
        shards = "1 shard" if self.shards == 1 else f"{self.shards} shards"
        missing = f", {self.missing} still missing" if self.missing else ""
        done = f"{questions} in {shards}: {self.written} written, {self.before} finished before{missing}"
        short = [f"with fewer than k = {self.k} eligible items: {self.short:,}"] if self.short else []
        return [done, *short, f"written: {self.folder}"]


def predict_users(
    job: PredictJob, folder: Path, users: Path | None = None, shards: int | None = None, shard: int | None = None
) -> PredictSummary:
    """Write the predict sets of users into a folder of shards; what is finished there is kept.

    Under torchrun each process takes every WORLD_SIZE-th shard, from its RANK on.

    Args:
        job: run, row, time, newer events.
        folder: of the shards, new or of the same call.
        users: a file, see `conrec.predicting.users.users_of_file`; None: every user with a history.
        shards: how many; None: one for every 4,096 questions.
        shard: the only one to do, from 0; for schedulers that start one process a shard.

    Raises:
        ConrecError: anything that the user can mend.
        OSError: the disk is full, among others; finished shards stay.
    """
    predictor = Predictor(job)
    with joined(device_of(predictor.config)) as processes:
        torch.set_num_threads(_threads(predictor, processes))
        log = predictor.log
        asked = all_users(log, predictor.at) if users is None else users_of_file(users, log, job.at)
        pool = [] if predictor.pool is None else predictor.pool.counts.lines()
        for line in [*predictor.histories.lines, *pool, *asked.counts.lines()]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        plan = Plan.of(folder, predictor.made_from(), asked, shards)
        mine = _mine(plan, shard, processes)
        if processes.first:
            plan.claim()
        processes.decide()
        plan.claim()
        done = processes.gather(astuple(write_shards(plan, predictor, asked, mine)))
        before, written, short = (sum(column) for column in zip(*done, strict=True))
        missing = len(plan.missing())
        return PredictSummary(folder, before, written, missing, plan.shards, plan.questions, job.k, short)


def _mine(plan: Plan, shard: int | None, processes: Processes) -> list[int]:
    """Shards of this process."""
    if shard is None:
        return list(range(processes.rank, plan.shards, processes.world))
    if not 0 <= shard < plan.shards:
        raise ConfigError(f"shard {shard}", where="--shard", expected=f"from 0 to {plan.shards - 1}")
    if processes.world > 1:
        raise ConfigError(
            "torchrun shares the shards out by itself", where="--shard", mend="Leave --shard away, or torchrun."
        )
    return [shard]


def _threads(predictor: Predictor, processes: Processes) -> int:
    """CPU threads of this process: as configured, or its share of the machine's."""
    return predictor.config.run.threads or max(1, len(os.sched_getaffinity(0)) // processes.local)

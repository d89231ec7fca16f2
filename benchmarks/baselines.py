"""SASRec: an epoch of training, and the top 20 of the whole catalogue for every user, against RecBole's.

Claims: `training_speedup_over_recbole` and `scoring_speedup_over_recbole`, at least 1: RecBole's time by ours, in
turns, on MovieLens-100K split leave-one-out (every rating an interaction), width 64, two layers, two heads, 50 events,
dropout 0.5, full softmax, 2,048 learned positions in a step, the same threads. RecBole runs in the interpreter that
CONREC_BENCHMARK_RECBOLE names (`common.recbole_peer` says how to make one); without it these two are left out.
`…_speedup_over_plain` is the same against SASRec as one writes it with `torch.nn` (`common.plain_sasrec`).

Ours is asked through the public interface: an epoch is a whole fit of one epoch, the cutting of the log into stretches
included, and scoring reads the histories from the log and answers in double precision. The peers find their rows
padded and ready.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from common.harness import Report, arguments, take_turns
from common.leave_one_out import leave_one_out, write_for_recbole
from common.machine import machine
from common.plain_sasrec import PlainSasrec
from common.recbole_runs import RECBOLE, ServedRecbole, recbole_python
from conrec.baselines.sequential.sasrec import Sasrec
from conrec.config import Config, DataConfig
from conrec.logs.prepare import Prepared
from conrec.logs.sources import load
from conrec.seeds import generator
from conrec.workspace import Workspace

PARTS = ("recbole", "plain")
WIDTH, LAYERS, HEADS, LENGTH, DROPOUT = 64, 2, 2, 50, 0.5
POSITIONS = 2048
"""Learned in a step: RecBole's default batch, a position a row; ours learns at every position of a row."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        users: a seeded sample, None for all.
        turns: of an epoch; scoring has three times as many.
    """

    users: int | None
    turns: int


FULL, PLAIN, QUICK = Size(None, 3), Size(200, 3), Size(40, 1)


def read_log(users: int | None) -> Prepared:
    """MovieLens-100K, leave-one-out, of some users or all; the whole catalogue."""
    loaded = load(DataConfig(source="ml-100k"))
    events = loaded.events
    if users is not None:
        names = np.unique(events["user_id"].to_numpy(zero_copy_only=False))
        chosen = generator(0, "benchmark", "users").choice(names, users, replace=False)
        events = events.filter(np.isin(events["user_id"].to_numpy(zero_copy_only=False), chosen))
    return leave_one_out(events, loaded.items)


class Ours:
    """The row ``sasrec`` of the table, through its public interface."""

    def __init__(self, prepared: Prepared) -> None:
        self.test = prepared.anchors.of_split("test")
        self.log = prepared.log
        sizes = {"hidden_size": WIDTH, "layers": LAYERS, "heads": HEADS, "max_length": LENGTH, "dropout": DROPOUT}
        section = {**sizes, "batch_size": -(-POSITIONS // LENGTH), "epochs": 1}
        config = Config.model_validate(
            {"protocol": {"history_eligible": True}, "run": {"device": "cpu"}, "baselines": {"sasrec": section}}
        )
        self.space = Workspace(Path(), config)
        # Without validation anchors an epoch is training alone, as it is for the peers.
        self.space.prepared = replace(prepared, anchors=self.test)
        self.model = self.epoch()

    def epoch(self) -> Sasrec:
        """Fit for one epoch."""
        return Sasrec.fit(self.space, "sasrec")

    def score(self) -> np.ndarray:
        """The 20 best items of every user."""
        return self.model.predict(self.log, self.test.queries, 20, history_eligible=True).item


def contest(report: Report, name: str, ours: Ours, peer: ServedRecbole | PlainSasrec, size: Size) -> None:
    """Both claims against one peer, and the figures behind them."""
    learned = len(ours.space.training_log)
    for what, turns, calls, at_once in (
        ("training", size.turns, {name: peer.epoch, "ours": ours.epoch}, learned),
        ("scoring", 3 * size.turns, {name: peer.score, "ours": ours.score}, len(ours.test)),
    ):
        # An epoch of a peer is long, and has warmed up after its first batches.
        found = take_turns(calls, turns, calls={"ours": 3}, warm=dict.fromkeys(calls, what == "scoring"))
        report.figure(f"{what}_seconds/{name}", found.spread(name))
        report.figure(f"{what}_seconds/ours, beside {name}", found.spread("ours"))
        unit = "interactions" if what == "training" else "users"
        report.figure(f"{what}_{unit}_per_second/ours, beside {name}", at_once / found.spread("ours").median)
        report.claim(f"{what}_speedup_over_{name}", found.ratio(name, "ours").median, runs=turns, at_least=1.0)


def against_recbole(report: Report, size: Size) -> None:
    """RecBole in its own interpreter, on the same log."""
    python = recbole_python()
    if python is None:
        report.note(f"RecBole is left out: {RECBOLE} names no Python that has it (benchmarks/common/recbole_peer.py)")
        return
    report.heading(f"against RecBole, {size.users or 'all'} users")
    prepared = read_log(size.users)
    sizes = {"hidden_size": WIDTH, "inner_size": 4 * WIDTH, "n_layers": LAYERS, "n_heads": HEADS}
    settings = {
        **sizes, "hidden_dropout_prob": DROPOUT, "attn_dropout_prob": DROPOUT, "MAX_ITEM_LIST_LENGTH": LENGTH,
        "train_batch_size": POSITIONS, "loss_type": "CE",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "log"
        write_for_recbole(prepared, data)
        threads = torch.get_num_threads()
        spec = {"model": "SASRec", "data": str(data), "seed": 0, "threads": threads, "settings": settings}
        with ServedRecbole(python, spec) as peer:
            contest(report, "recbole", Ours(prepared), peer, size)


def against_plain(report: Report, size: Size) -> None:
    """The same by `torch.nn`, a row a prefix."""
    report.heading(f"against torch.nn, {size.users or 'all'} users")
    prepared = read_log(size.users)
    ours = Ours(prepared)
    peer = PlainSasrec(
        ours.space.training_log, prepared.log, WIDTH, LAYERS, HEADS, LENGTH, DROPOUT, POSITIONS
    )  # fmt: skip
    contest(report, "plain", ours, peer, size)


def main() -> None:
    """Measure what the command line asks for."""
    given = arguments(__doc__, PARTS)
    report = Report("baselines", given.quick)
    described = machine("cpu")
    full, plain = (QUICK, QUICK) if given.quick else (FULL, PLAIN)
    report.runs = full.turns
    if given.quick:
        report.note(f"quick: {QUICK.users} users of 943, one turn of an epoch and three of scoring")
    if given.wants("recbole"):
        against_recbole(report, full)
    if given.wants("plain"):
        against_plain(report, plain)
    report.finish(described, given.json)


if __name__ == "__main__":
    main()

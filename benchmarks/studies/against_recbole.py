"""Are the sequential rows as strong as RecBole's, on RecBole's own ground?

    CONREC_BENCHMARK_RECBOLE=VENV/bin/python python -m benchmarks.studies.against_recbole peer [--rows …] [--seeds …]
    python -m benchmarks.studies.against_recbole ours [--rows …] [--seeds …]
    python -m benchmarks.studies.against_recbole table

MovieLens-100K, every rating an interaction, leave-one-out by time: each user's last one is the test, the one before
validation, all others training (`benchmarks.common.leave_one_out`). Both sides read the same rewritten log, rank all
items, and leave those of the history in the ranking, as RecBole does for sequential models (the figures without them
stand beside). RecBole's models run with its own settings for this log, except where `PEERS` says otherwise; its values
are frozen in ``tests/oracle/recbole_ml100k.json``, and are measured again only where that file lacks them. Ours run
with the settings in `OURS`. Each side keeps the state that is best on validation: RecBole by NDCG@10, ours by hit@20.
A difference is of the means over seeds, paired over users. Everything runs on one thread; the result is written after
each model, and what is there already is not computed again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common.leave_one_out import figures_of, leave_one_out, ranks_of, write_for_recbole
from benchmarks.common.machine import machine
from benchmarks.common.recbole_runs import RECBOLE, recbole_python, train_recbole
from benchmarks.common.rounding import rounded

from conrec.artefacts import hash_file, read_json, write_json
from conrec.baselines.registry import REGISTRY, baseline_class
from conrec.config import Config, DataConfig
from conrec.evaluation.significance import Bootstrap
from conrec.items.encoders.embed import item_texts
from conrec.items.encoders.text import encode_texts
from conrec.logs.prepare import Prepared
from conrec.logs.sources import load
from conrec.workspace import Workspace

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / "tests" / "oracle" / "recbole_ml100k.json"
RESULTS = ROOT / "benchmarks" / "results" / "against_recbole.json"
NAME = "ml-100k-leave-one-out"
RESAMPLES = 2000

PEERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sasrec": ("SASRec", {}),
    "caser": ("Caser", {"MAX_ITEM_LIST_LENGTH": 10}),
    "bert4rec": ("BERT4Rec", {}),
    "fdsa": ("FDSA", {"selected_features": ["class"]}),
    "s3-rec": ("S3Rec", {"item_attribute": "class", "pretrain_epochs": 3}),
}
"""RecBole's name of each row, and what of its settings differs from `COMMON`. Its documentation asks for short
histories in Caser, such as 10, and pretrains S3-Rec for 500 epochs of 48 steps, which no processor does in a day; here
it is 3 of 760."""
COMMON: Mapping[str, Any] = {
    "MAX_ITEM_LIST_LENGTH": 50,
    "loss_type": "CE",
    "epochs": 300,
    "train_batch_size": 128,
    "stopping_step": 3,
}
"""RecBole's defaults (full softmax, Adam at 1e-3, its sizes), except the last two: by default its batches have 2,048
rows, and it stops after 10 epochs without a better value, 480 steps; batches of 128 make 760 steps of an epoch, so that
it arrives in a few epochs, and it stops after 2,280 steps without a better value."""
OURS: dict[str, Mapping[str, Any]] = {row: {} for row in PEERS}
"""Our settings where they differ from the defaults, which are for dislikes; to be chosen by hit@20 on validation. None
is chosen yet: these are the defaults."""
SEED_NOISE = 0.006
"""What seeds are taken to move a mean by, where one side has too few of them to say: assumed, not measured."""
FIGURES = ("hit@10", "hit@20", "ndcg@10")


def read_log() -> Prepared:
    """MovieLens-100K, leave-one-out."""
    loaded = load(DataConfig(source="ml-100k"))
    return leave_one_out(loaded.events, loaded.items)


def run_peer(rows: Sequence[str], seeds: Sequence[int], file: Path) -> None:
    """Freeze RecBole's results, except those that are there.

    Raises:
        SystemExit: no interpreter with RecBole is named.
    """
    python = recbole_python()
    if python is None:
        raise SystemExit(f"set {RECBOLE} to a Python that has RecBole (benchmarks/common/recbole_peer.py says how)")
    prepared = read_log()
    found: dict[str, Any] = read_json(file) if file.is_file() else {"rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / NAME
        write_for_recbole(prepared, data)
        found["log"] = {one.name: hash_file(one) for one in sorted(data.iterdir())}
        for seed in seeds:
            for row in rows:
                model, own = PEERS[row]
                settings = {**COMMON, **own}
                kept = found["rows"].setdefault(row, {"model": model, "settings": settings, "seeds": {}})
                if str(seed) in kept["seeds"]:
                    continue
                spec = {"model": model, "data": str(data), "seed": seed, "threads": 1, "settings": settings}
                answer = train_recbole(python, spec)
                ranks = [answer["ranks"][user] for user in prepared.log.user_ids]
                kept["seeds"][str(seed)] = {**answer, **_packed([a for a, _ in ranks], [b for _, b in ranks])}
                write_json(file, found)
                print(row, seed, figures_of([a for a, _ in ranks]), flush=True)


def space_of(prepared: Prepared, config: Config, row: str) -> Workspace:
    """A workspace of that log, all in memory; items are embedded by the default encoder of texts, where it matters."""
    space = Workspace(Path("no-such-run"), config)
    space.prepared = prepared
    if "embeddings" in REGISTRY[row].needs:
        space.embeddings = encode_texts(item_texts(prepared.items), config.encoder)
    return space


def run_ours(rows: Sequence[str], seeds: Sequence[int], file: Path, prepared: Prepared | None = None) -> None:
    """Train and rank our rows, except those that are there."""
    prepared = prepared or read_log()
    found: dict[str, Any] = read_json(file) if file.is_file() else {"study": "against_recbole", "rows": {}}
    torch.set_num_threads(1)
    test = prepared.anchors.of_split("test")
    log, asked = prepared.log, zip(test.user.tolist(), test.timestamp.tolist(), strict=True)
    histories = [log.item[log.history(user, timestamp)] for user, timestamp in asked]
    for seed in seeds:
        for row in rows:
            section = REGISTRY[row].sections[0].partition(".")[2]
            kept = found["rows"].setdefault(row, {"settings": dict(OURS[row]), "seeds": {}})
            if str(seed) in kept["seeds"]:
                continue
            config = Config.model_validate(
                {
                    "protocol": {"history_eligible": True},
                    "run": {"seed": seed, "threads": 1, "device": "cpu"},
                    "baselines": {section: dict(OURS[row])},
                }
            )
            space = space_of(prepared, config, row)
            begin = time.process_time()
            model = baseline_class(row).fit(space, row)
            seconds = time.process_time() - begin
            scores = model.scores(log, test.queries)
            curve = model.curve["validation_fhr@20"]
            ranks = ranks_of(scores, test.next_item)
            kept["seeds"][str(seed)] = {
                "parameters": model.parameters,
                "epochs": len(curve),
                "best_epoch": max(curve, key=lambda pair: pair[1])[0],
                "cpu_seconds": round(seconds, 1),
                "validation_hit@20": rounded(curve),
                **_packed(ranks, ranks_of(scores, test.next_item, histories)),
            }
            found["machine"] = machine("cpu")
            write_json(file, found)
            print(row, seed, figures_of(ranks), f"{seconds:.0f} s", flush=True)


def _packed(ranks: Sequence[int], without: Sequence[int]) -> dict[str, Any]:
    """Ranks of all users, in one string each: a line a number would be most of the file."""
    return {
        "figures": {**rounded(figures_of(ranks)), "without_history": rounded(figures_of(without))},
        "ranks": " ".join(map(str, ranks)),
        "ranks_without_history": " ".join(map(str, without)),
    }


def values_of(side: Mapping[str, Any], ranks: str = "ranks") -> np.ndarray:
    """Figures of each user, the mean over the seeds of one row of one side, float64 [users, figures]."""
    of_seed = []
    for one in side["seeds"].values():
        each = [figures_of([int(rank)]) for rank in one[ranks].split()]
        of_seed.append([[user[name] for name in FIGURES] for user in each])
    return np.mean(np.asarray(of_seed, dtype=np.float64), axis=0)


def compare(ours: Mapping[str, Any], peer: Mapping[str, Any], ranks: str = "ranks") -> dict[str, dict[str, float]]:
    """Of one row: both means over seeds, the difference and its 95 % interval over users, and the spread of seeds.

    Returns:
        For each figure ``ours``, ``recbole``, ``difference``, ``low``, ``high``, and ``seed_noise``: twice the standard
        error of the difference that the seeds alone explain (0 where each side has one seed).
    """
    first, second = values_of(ours, ranks), values_of(peer, ranks)
    found = Bootstrap.over(np.arange(len(first)), RESAMPLES, 0).compare(first, second)
    result = {}
    for column, (name, one) in enumerate(zip(FIGURES, found, strict=True)):
        assert one is not None
        result[name] = {
            "ours": float(first[:, column].mean()),
            "recbole": float(second[:, column].mean()),
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "seed_noise": 2 * float(np.sqrt(_variance(ours, name, ranks) + _variance(peer, name, ranks))),
        }
    return result


def _variance(side: Mapping[str, Any], name: str, ranks: str) -> float:
    """Variance of the mean over seeds."""
    values = [figures_of([int(rank) for rank in one[ranks].split()])[name] for one in side["seeds"].values()]
    return float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else 0.0


def table(ours: Mapping[str, Any], peer: Mapping[str, Any], ranks: str = "ranks") -> str:
    """Markdown: a line a row, figures of both sides, the difference with its interval."""
    lines = ["| row | seeds | " + " | ".join(f"{name} | RecBole | difference" for name in FIGURES) + " |"]
    lines.append("|---" * (2 + 3 * len(FIGURES)) + "|")
    for row in PEERS:
        if row not in ours["rows"] or row not in peer["rows"]:
            continue
        own, other = ours["rows"][row], peer["rows"][row]
        cells = [
            "{ours:.3f} | {recbole:.3f} | {difference:+.3f} ({low:+.3f} to {high:+.3f})".format(**one)
            for one in compare(own, other, ranks).values()
        ]
        lines.append(f"| {row} | {len(own['seeds'])}, {len(other['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", choices=("peer", "ours", "table"))
    parser.add_argument("--rows", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--oracle", type=Path, default=ORACLE)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.what == "peer":
        run_peer(given.rows, given.seeds, given.oracle)
    elif given.what == "ours":
        run_ours(given.rows, given.seeds, given.json)
    else:
        ours, peer = read_json(given.json), read_json(given.oracle)
        print(table(ours, peer), "", table(ours, peer, "ranks_without_history"), sep="\n")


if __name__ == "__main__":
    main()

"""A synthetic run with every artefact, made by the project's own code; only the models' answers are invented."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from conrec.arrays import Array, Ragged
from conrec.artefacts import read_parquet, write_json, write_parquet, write_parquet_parts, write_tensors, write_text
from conrec.config import Config, dump_config, load_config
from conrec.evaluation.evaluate import RunData, evaluate, read_run_data
from conrec.evaluation.predictions import write_candidate_scores, write_predictions
from conrec.evaluation.studies import code_groups, motivation_study
from conrec.filtering.analysis.analyse import analyse_filter
from conrec.filtering.calibrating.calibration import calibrate
from conrec.filtering.calibrating.testing import test_report
from conrec.filtering.catalogue import FilterCatalogue
from conrec.items.diagnosis.diagnostics import describe_items
from conrec.items.semantic_ids import SemanticIds, write_semantic_ids
from conrec.logs.anchor_table import anchor_tables
from conrec.logs.anchors import build_anchors
from conrec.logs.log import Log
from conrec.logs.schema import ANCHORS, EVENTS, ITEMS
from conrec.protocol import DAY, periods_of
from conrec.recommender import Ranking
from conrec.rows import conrec_rows, rows_of

EVIL = "<script>alert('title')</script> & \"quoted\" <img src=x onerror=alert(1)>"
N_USERS, N_ITEMS, N_EVENTS, BEGIN = 60, 120, 4000, 1_600_000_000
WORDS = (
    "Quiet",
    "Last",
    "Golden",
    "Broken",
    "Winter",
    "Second",
    "River",
    "House",
    "Letters",
    "Return",
    "of the",
    "and",
)


def write_run(run: Path, seed: int = 0, bootstraps: int = 200) -> Path:
    """Write a run of ``N_USERS`` users into ``run``; the same seed gives the same files."""
    rng = np.random.default_rng(seed)
    config = load_config(overrides={"evaluation": {"bootstraps": bootstraps}, "filter": {"false_filter_rate": 0.15}})
    write_text(run / "config.toml", dump_config(config))
    write_json(
        run / "environment.json", {"python": "3.11.4", "packages": {"torch": "2.13.0"}, "threads": 2, "gpu": None}
    )
    write_json(run / "timings.json", {"data": 2.4, "items": 61.2, "models": 512.0, "predictions": 3700.5})
    data = _write_data(run, rng, config)
    catalogue = _write_items(run, rng)
    for strength, model in enumerate(rows_of(config)):
        _write_answers(run, model, data, rng, strength)
    evaluate(run, config)
    for model in ("most-disliked", "conrec"):
        calibrate(run, model, data, catalogue, config)
    test_report(run, ("most-disliked", "conrec"), data, catalogue, config)
    analyse_filter(run, config, ["most-disliked", "conrec"])
    _write_studies(run, data, catalogue, config)
    _write_curves(run, rng)
    return run


def _write_data(run: Path, rng: np.random.Generator, config: Config) -> RunData:
    titles = [" ".join(rng.choice(WORDS, 3)) + f" ({1950 + item % 60})" for item in range(N_ITEMS)]
    titles[1] = EVIL
    titles[2] = "😀🎬"
    titles[3] = ""
    ids = [f"i{item:03}" for item in range(N_ITEMS)]
    categories = [["Drama"] if item % 2 else ["Comedy", "War"] for item in range(N_ITEMS)]
    items = pa.table(
        {"item_id": ids, "title": titles, "text": titles, "category": categories, "image": [None] * N_ITEMS},
        schema=ITEMS,
    )
    user, item = rng.integers(0, N_USERS, N_EVENTS), (N_ITEMS * rng.random(N_EVENTS) ** 1.7).astype(int)
    taste = (user * 7 + item) % 5
    feedback = np.where(taste == 0, -1, np.where(taste >= 3, 1, 0)).astype(np.int8)
    # The last ten users dislike nothing before the validation period: the long tail, and anchors without negatives.
    feedback[(user >= N_USERS - 10) & (np.arange(N_EVENTS) < 0.7 * N_EVENTS) & (feedback < 0)] = 0
    events = pa.table(
        {
            "user_id": [f"u{one:02}" for one in user],
            "item_id": [ids[one] for one in item],
            "timestamp": np.sort(BEGIN + rng.integers(0, 150 * DAY, N_EVENTS)),
            "feedback": feedback,
        },
        schema=EVENTS,
    )
    log = Log.from_tables(events, items)
    periods = periods_of(log.timestamp, 0.7, 0.8)
    anchors = build_anchors(log, periods, 7 * DAY, 0)
    write_parquet(run / "data" / "events.parquet", events)
    write_parquet(run / "data" / "items.parquet", items)
    write_parquet_parts(run / "data" / "anchors.parquet", ANCHORS, anchor_tables(anchors, log.user_ids, log.item_ids))
    write_json(run / "data" / "periods.json", asdict(periods))
    refused = {"no rating": 3, "unknown item": 12}
    first = {"no rating": "line 17: ''", "unknown item": f"line 80: {EVIL}", "title is empty": "line 3: ''"}
    counts = {
        "source": "ml-100k",
        "hashes": {"u.data": "0" * 64},
        "events": {"file": "u.data", "rows": 4015, "kept": 4000, "refused": refused, "noted": {}, "examples": first},
        "items": {"file": "u.item", "rows": N_ITEMS, "kept": N_ITEMS, "refused": {}, "noted": {"title is empty": 1}},
    }
    counts["items"]["examples"] = first  # type: ignore[index]
    write_json(run / "data" / "counts.json", counts)
    return read_run_data(run)


def _write_items(run: Path, rng: np.random.Generator) -> FilterCatalogue:
    codes = np.stack([np.arange(N_ITEMS) % 5, np.arange(N_ITEMS) // 8, np.arange(N_ITEMS) % 16], axis=1).astype(
        np.int32
    )
    ids = tuple(f"i{item:03}" for item in range(N_ITEMS))
    sids = SemanticIds(codes, codes, 16)
    write_semantic_ids(run / "items" / "semantic_ids.parquet", ids, sids)
    centres = rng.normal(size=(5, 16)) * 1.5
    rebuilt = centres[codes[:, 0]] + rng.normal(size=(N_ITEMS, 16))
    rebuilt = (rebuilt / np.linalg.norm(rebuilt, axis=1, keepdims=True)).astype(np.float32)
    write_tensors(run / "items" / "rebuilt.safetensors", {"rebuilt": rebuilt})
    noisy = rebuilt + rng.normal(size=rebuilt.shape).astype(np.float32) * np.float32(0.2)
    described = describe_items(
        sids, noisy, rebuilt, rebuilt, np.arange(N_ITEMS) < 100, read_parquet(run / "data" / "items.parquet"), 0
    )
    write_json(run / "items" / "diagnostics.json", described)
    return FilterCatalogue.load(run)


def _write_answers(run: Path, model: str, data: RunData, rng: np.random.Generator, strength: int) -> None:
    """Rankings that know a little of what will come, more so for later models."""
    anchors = data.anchors.select(data.anchors.split > 0)
    scores = rng.normal(size=(len(anchors), N_ITEMS))
    taste = (anchors.user[:, None] * 7 + np.arange(N_ITEMS)[None, :]) % 5 == 0
    scores += taste * 0.12 * strength
    for row, (user, timestamp) in enumerate(zip(anchors.user, anchors.timestamp, strict=True)):
        scores[row, data.log.item[data.log.history(int(user), int(timestamp))]] = -np.inf
    write_predictions(
        run / "predictions" / f"{model}.parquet", anchors, Ranking.from_scores(scores, 50), data.log.item_ids
    )
    candidate_scores = np.take_along_axis(scores, anchors.candidates.clip(min=0), axis=1)
    candidate_scores[~np.isfinite(candidate_scores)] = -9
    answer = anchors.candidates == anchors.next_item[:, None]
    candidate_scores = np.where(anchors.candidates >= 0, candidate_scores + answer * 0.15 * strength, -np.inf)
    path = run / "candidate_scores" / f"{model}.parquet"
    write_candidate_scores(path, anchors, candidate_scores.astype(np.float32), data.log.item_ids)


def _write_studies(run: Path, data: RunData, catalogue: FilterCatalogue, config: Config) -> None:
    stages = conrec_rows(config)
    accuracy = [0.27, 0.61, 0.48, 0.5, 0.52, 0.55]
    models = {
        name: {"value": value, "low": value - 0.02, "high": value + 0.02}
        for name, value in zip(stages, accuracy, strict=True)
    }
    rules = {
        "random among answers possible": {"value": 0.314, "low": 0.29, "high": 0.33},
        "most disliked": {"value": 0.402, "low": 0.38, "high": 0.42},
        "dislike share": {"value": 0.451, "low": 0.43, "high": 0.47},
    }
    alignment = {"chance": 0.25, "choices": 2000, "users": 50, "models": models, "item_only": rules}
    write_json(run / "results" / "alignment.json", alignment)
    gts = Ragged.from_rows([[*row.tolist(), (int(row[0]) + 5) % N_ITEMS] for row in data.anchors.future_negatives])
    study = motivation_study(
        data.log,
        data.anchors,
        gts,
        {"semantic_id": code_groups(catalogue.sids.resolved), "category": code_groups(_halves())},
        bootstraps=config.evaluation.bootstraps,
        seed=0,
    )
    write_json(run / "results" / "motivation.json", study)


def _halves() -> Array:
    return (np.arange(N_ITEMS) % 2)[:, None]


def _write_curves(run: Path, rng: np.random.Generator) -> None:
    def walk(start: float, end: float, steps: int, noise: float) -> list[list[float]]:
        line = end + (start - end) * np.exp(-np.linspace(0, 4, steps)) + rng.normal(size=steps) * noise
        return [[int(step), round(float(value), 5)] for step, value in enumerate(line)]

    for model in ("sasrec", "conrec-translation", "conrec-sft"):
        series = {"loss": walk(6, 2, 500, 0.1), "validation_fhr@20": walk(0.2, 0.4, 6, 0.01)}
        write_json(run / "models" / model / "curve.json", series)
    for model, start in (("conrec-grpo-1", 0.35), ("conrec-grpo-2", 0.42), ("conrec", 0.46)):
        series = {
            "reward": walk(start, start + 0.08, 100, 0.03),
            "reward_std": walk(0.2, 0.12, 100, 0.01),
            "kl": walk(0, 0.05, 100, 0.003),
            "loss": walk(0.02, 0.0, 100, 0.01),
            "items_in_lists both": walk(300, 160, 6, 1),
            "distinct_first_codes": walk(14, 9, 100, 1),
            "distinct_items": walk(16, 12, 100, 1),
            "validation_reward": walk(start, start + 0.06, 8, 0.005),
        }
        write_json(run / "models" / model / "curve.json", series)
        write_json(run / "models" / model / "notes.json", {"samples": 1280, "augmented": 3, "validation_samples": 461})

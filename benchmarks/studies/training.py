"""What does each part of the training contribute? The paper's Tables 2 to 4 and the sensitivity to what it leaves open.

    python -m benchmarks.studies.training run SET FOLDER [--config CONFIG.toml] [--seeds 0 1 2] [--arms ARM ...]
    python -m benchmarks.studies.training table benchmarks/results/training-*.json
    python -m benchmarks.studies.training plot benchmarks/results/training-*.json --to docs/images

Every arm is the chain with a few settings changed (`ARMS`), at the preset `tiny`, on one thread. It begins with a copy
of the finished stages of the unchanged chain with the same seed, so that what both share is trained once. The result is
written after each arm and holds each anchor's value, so that an arm that stands there is not run again, whoever has the
run, and all arms are compared on the same anchors. Nothing is chosen by these figures.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common.machine import machine
from benchmarks.common.rounding import rounded
from benchmarks.studies.training_arms import ARMS, OURS
from benchmarks.studies.training_plots import draw_all
from benchmarks.studies.training_tables import CHOICES, METRICS, encoded, table

from conrec.artefacts import read_json, read_parquet, write_json
from conrec.config import Config, load_config
from conrec.evaluation.evaluate import answers_on_test
from conrec.folders import locked
from conrec.pipeline import Pipeline
from conrec.run import Chain
from conrec.workspace import Workspace

STAGES = ("data:", "items:", "train conrec", "predict conrec", "four-way")
SETS = ("ml-100k", "movietweetings")


def run(name: str, folder: Path, config: Path | None, seeds: Sequence[int], arms: Sequence[str], results: Path) -> None:
    """Run arms with seeds, those that stand in the result excepted; the first of them is always there.

    Raises:
        SystemExit: the result is that of another set.
    """
    found: dict[str, Any] = {"study": f"training/{name}", "arms": {}}
    if results.is_file():
        found = read_json(results)
        if found.get("study") != f"training/{name}":
            raise SystemExit(f"{results} holds {found.get('study')!r}, not 'training/{name}': give another --json")
    torch.set_num_threads(1)
    for arm, own in found["arms"].items():
        if arm in ARMS and own["settings"] != ARMS[arm].settings:
            raise SystemExit(f"{results} holds {arm!r} with other settings: take it out of the file")
    for seed in seeds:
        missing = [arm for arm in arms if str(seed) not in found["arms"].get(arm, {"seeds": {}})["seeds"]]
        for arm in dict.fromkeys((OURS, *missing)) if missing else ():
            place, chosen = folder / f"{arm}-{seed}", _config(name, config, arm, seed)
            if arm != OURS and not place.exists():
                whole, unlike = folder / f"{OURS}-{seed}", shutil.ignore_patterns("results", ".lock")
                shutil.copytree(whole, place, copy_function=os.link, ignore=unlike)
            seconds = _train(chosen, place, ARMS[arm].upto)
            own = found["arms"].setdefault(arm, {"settings": ARMS[arm].settings, "seeds": {}})
            if str(seed) in own["seeds"]:  # run for what the others share
                continue
            own["seeds"][str(seed)] = rounded(_described(chosen, place, seconds))
            _write_shared(found, place, seed)
            found["machine"] = machine("cpu")
            write_json(results, found)
            print(f"{name}, {arm}, seed {seed}: {sum(seconds.values()):.0f} s", flush=True)
            if arm != OURS:
                shutil.rmtree(place)


def _config(name: str, config: Path | None, arm: str, seed: int) -> Config:
    overrides: dict[str, Any] = {
        "run": {"seed": seed, "threads": 1},
        "baselines": {"rows": []},
        **{section: dict(values) for section, values in ARMS[arm].settings.items()},
    }
    if config is None:
        overrides["data"] = {"source": name}
    stages = overrides.get("grpo", {}).get("stages")
    if stages:  # as many contexts in all as the unchanged chain has with this file
        unchanged = _config(name, config, OURS, seed).grpo.stages
        each = sum(stage.samples for stage in unchanged) // len(stages)
        overrides["grpo"]["stages"] = [{**stage, "samples": each} for stage in stages]
    return load_config("tiny", config, overrides)


def _train(config: Config, folder: Path, upto: str) -> dict[str, float]:
    """The stages of one arm up to a row; seconds of those that the language model needs."""
    with locked(folder):
        stages = [stage for stage in Chain(Workspace(folder, config)).stages() if stage.name.startswith(STAGES)]
        if upto != "conrec":
            last = next(number for number, stage in enumerate(stages) if stage.name == f"predict {upto}")
            stages = stages[: last + 1]
        pipeline = Pipeline(folder)
        pipeline.run(stages)
    return {name: seconds for name, seconds in pipeline.seconds.items() if name.startswith("train ")}


def _described(config: Config, folder: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What an arm gave: values of test anchors and choices by row, curves of its stages, seconds."""
    rows = [name.removeprefix("train ") for name in seconds]
    answered = answers_on_test(folder, config, rows)
    choices = folder / "results" / "alignment.parquet"
    right = read_parquet(choices) if choices.is_file() else None
    described: dict[str, Any] = {"seconds": {name: round(one, 1) for name, one in seconds.items()}, "rows": {}}
    for row in rows:
        own: dict[str, Any] = {metric: encoded(answered.values[row][metric]) for metric in METRICS}
        own["items_in_lists"] = len(np.unique(answered.top[row][:, :20][answered.top[row][:, :20] >= 0]))
        if right is not None and row in right.column_names:
            own[CHOICES] = encoded(right[row].to_numpy().astype(np.float64))
        described["rows"][row] = own
    described["curves"] = {row: _curve(folder / "models" / row / "curve.json") for row in rows}
    return described


def _curve(path: Path) -> dict[str, Any]:
    """Beginning and end of each series: single values where it is measured now and then, else means of five steps."""
    series: Mapping[str, Sequence[Sequence[float]]] = read_json(path)
    found: dict[str, Any] = {}
    for name, points in series.items():
        values = [value for _, value in points]
        some = 1 if name.startswith(("validation", "items_in_lists", "kl_weight")) else 5
        found[name] = [statistics.fmean(values[:some]), statistics.fmean(values[-some:])]
    return found


def _write_shared(found: dict[str, Any], folder: Path, seed: int) -> None:
    """Users of the test anchors, and of the choices of a seed: what the values are resampled by."""
    if "users" not in found:
        found["users"] = answers_on_test(folder, Config(), []).anchors.user.tolist()
    choices = folder / "results" / "alignment.parquet"
    if choices.is_file() and str(seed) not in found.setdefault("choice_users", {}):
        users = read_parquet(choices)["user_id"].to_pylist()
        known = {user: number for number, user in enumerate(sorted(set(users)))}
        found["choice_users"][str(seed)] = [known[user] for user in users]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    started = commands.add_parser("run")
    started.add_argument("set", choices=SETS)
    started.add_argument("folder", type=Path, help="where the runs lie")
    started.add_argument("--config", type=Path, help="TOML file that names the data; not for ml-100k")
    started.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    started.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    started.add_argument("--json", type=Path, help="where the result goes; benchmarks/results/training-SET.json")
    shown = commands.add_parser("table")
    shown.add_argument("files", type=Path, nargs="+")
    drawn = commands.add_parser("plot")
    drawn.add_argument("files", type=Path, nargs="+")
    drawn.add_argument("--to", type=Path, required=True, help="folder of the pictures")
    given = parser.parse_args()
    if given.command == "table":
        print(table([read_json(file) for file in given.files]))
    elif given.command == "plot":
        for file in given.files:
            draw_all(read_json(file), given.to)
    else:
        results = given.json or Path("benchmarks/results") / f"training-{given.set}.json"
        run(given.set, given.folder, given.config, given.seeds, given.arms, results)


if __name__ == "__main__":
    main()

"""Which embedding of the items gives the best negative recommendation? Text, image, co-feedback, and their fusion.

    python -m benchmarks.studies.embeddings run SET FOLDER --config CONFIG.toml [--clip MODEL] [--seeds 0 1 2]
    python -m benchmarks.studies.embeddings table benchmarks/results/embeddings-*.json

Every arm is a run of its own, from the items stage through translation, alignment and next-negative SFT (the arms
differ before the language model, so that GRPO, which costs most, is left out), with the settings in LIGHTER where
they differ from the preset `tiny`. Runs continue where they were killed; the result is written after each of them.
Figures are those of the row `conrec-sft` on the test anchors: the mean over seeds of each anchor's value, its 95 %
interval over resampled users, the spread between seeds, and the difference to text paired by anchor.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common.machine import machine

from conrec.artefacts import read_json, read_parquet, write_json
from conrec.config import Config, load_config
from conrec.evaluation.evaluate import read_run_data
from conrec.evaluation.metrics import anchor_values
from conrec.evaluation.predictions import read_candidate_scores, read_predictions
from conrec.evaluation.significance import Bootstrap
from conrec.folders import locked
from conrec.pipeline import Pipeline
from conrec.run import Chain
from conrec.workspace import Workspace

ROW = "conrec-sft"
STAGES = ("data:", "items:", "train conrec-translation", "train conrec-alignment", f"train {ROW}", f"predict {ROW}")
METRICS = ("hr@20", "fhr@20", "luf@20", "lif@20", "candidate_accuracy")
RESAMPLES = 2000
LIGHTER: Mapping[str, Mapping[str, Any]] = {
    "ml-100k": {
        "translation": {"epochs": 4},
        "alignment": {"samples": 10_000},
        "sft": {"epochs": 2, "evaluations": 4},
    },
    "movietweetings": {
        "prompts": {"max_events": 10},
        "translation": {"epochs": 1},
        "alignment": {"samples": 10_000},
        "sft": {"epochs": 1, "evaluations": 2},
        "prediction": {"certified": False},
    },
}
"""What differs from the preset, so that all arms and seeds take an evening on two cores; the same for every arm."""
COLLABORATIVE = {"negative_weight": 1.0, "positive_weight": 1.0}


def arms(clip: str | None) -> dict[str, dict[str, Any]]:
    """Settings of each arm; those with images only where there is a model for them."""
    image = {"model": clip}
    found: dict[str, dict[str, Any]] = {
        "text": {},
        "text + co-feedback": {"encoder": {"collaborative": COLLABORATIVE}},
        "co-feedback": {"encoder": {"text_weight": 0.0, "collaborative": COLLABORATIVE}},
    }
    if clip is not None:
        found["text + image"] = {"encoder": {"image": image}}
        found["image"] = {"encoder": {"text_weight": 0.0, "image": image}}
        found["text + image + co-feedback"] = {"encoder": {"image": image, "collaborative": COLLABORATIVE}}
    found["text, residual k-means"] = {"rqvae": {"method": "residual_kmeans"}}
    return found


def study(
    name: str, folder: Path, config: Path, clip: str | None, seeds: list[int], only: list[str] | None, results: Path
) -> None:
    """Run every arm (or some) with every seed, those that are there already excepted."""
    for seed in seeds:
        for arm, settings in arms(clip).items():
            if only and arm not in only:
                continue
            run = folder / f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
            overrides = _merged(LIGHTER[name], settings, {"run": {"seed": seed, "threads": 1}})
            overrides["encoder"] = {**overrides.get("encoder", {}), "cache": str(folder / "vectors")}
            _run(load_config("tiny", config, overrides), run)
            write_json(results, _collect(name, folder, clip, seeds))


def _merged(*layers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            merged[section] = {**merged.get(section, {}), **values}
    return merged


def _run(config: Config, folder: Path) -> None:
    """The stages of one arm."""
    torch.set_num_threads(1)
    with locked(folder):
        stages = [stage for stage in Chain(Workspace(folder, config)).stages() if stage.name.startswith(STAGES)]
        Pipeline(folder).run(stages)


def _collect(name: str, folder: Path, clip: str | None, seeds: list[int]) -> dict[str, Any]:
    """Figures of all finished runs."""
    values: dict[str, dict[int, np.ndarray]] = {}
    described: dict[str, Any] = {}
    users = np.empty(0)
    for arm in arms(clip):
        for seed in seeds:
            run = folder / f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
            if (run / "candidate_scores" / f"{ROW}.parquet").is_file():
                users, values.setdefault(arm, {})[seed] = _values(run)
                if seed == seeds[0]:
                    described[arm] = _items(run)
    bootstrap = Bootstrap.over(users, RESAMPLES, 0)
    means = {arm: np.mean(list(own.values()), axis=0) for arm, own in values.items()}
    found: dict[str, Any] = {}
    for arm, mean in means.items():
        figures = bootstrap.figures(mean)
        text = means["text"]
        compared = (
            bootstrap.compare(mean, text) if arm != "text" and values[arm].keys() == values["text"].keys() else None
        )
        found[arm] = {
            "seeds": sorted(values[arm]),
            "items": described.get(arm),
            "metrics": {
                metric: {
                    **(figures[place].to_json() if figures[place] else {}),
                    "by_seed": [float(np.nanmean(one[:, place])) for one in values[arm].values()],
                    "over_text": compared[place].to_json() if compared and compared[place] else None,
                }
                for place, metric in enumerate(METRICS)
            },
        }
    return {
        "study": f"embeddings/{name}",
        "row": ROW,
        "settings": LIGHTER[name],
        "machine": machine("cpu"),
        "arms": found,
    }


def _values(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Users of the test anchors, and each anchor's value of each metric, [anchors, metrics]."""
    data = read_run_data(run)
    test = data.anchors.of_split("test")
    known, ids = data.anchors.anchor_id, data.log.item_ids
    ranking = read_predictions(run / "predictions" / f"{ROW}.parquet", test, ids, known)
    scores = read_candidate_scores(run / "candidate_scores" / f"{ROW}.parquet", test, ids, known)
    negatives = data.log.before(data.periods.validation).negative_counts()[1]
    found = anchor_values(test, ranking.item, scores, negatives, 20)
    return test.user, np.stack([found[metric] for metric in METRICS], axis=1)


def _items(run: Path) -> dict[str, Any]:
    """What of the codes explains the figures: collisions and reconstruction."""
    described = read_json(run / "items" / "diagnostics.json")
    return {
        "items": read_parquet(run / "items" / "semantic_ids.parquet").num_rows,
        "views": described["embedding"]["views"],
        "collisions": described["collisions"]["before"]["rate"],
        "reconstruction_cosine": described["reconstruction_cosine"]["all"],
    }


def table(files: list[Path]) -> str:
    """Markdown of some results."""
    lines: list[str] = []
    for file in files:
        result = json.loads(file.read_text(encoding="utf-8"))
        lines += ["", f"**{result['study'].split('/')[1]}**", ""]
        lines += ["| embedding | " + " | ".join(METRICS) + " | seeds |", "|---|" + "---|" * (len(METRICS) + 1)]
        for arm, found in result["arms"].items():
            cells = []
            for metric in METRICS:
                one = found["metrics"][metric]
                spread = statistics.stdev(one["by_seed"]) if len(one["by_seed"]) > 1 else 0.0
                cell = f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}] ± {spread:.3f}"
                over = one["over_text"]
                cells.append(cell + (" *" if over and (over["low"] > 0 or over["high"] < 0) else ""))
            lines.append(f"| {arm} | " + " | ".join(cells) + f" | {len(found['seeds'])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("set", choices=LIGHTER)
    run.add_argument("folder", type=Path, help="where the runs lie")
    run.add_argument("--config", type=Path, required=True, help="TOML file that names the data")
    run.add_argument("--clip", help="CLIP or SigLIP model of the arms with images")
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--arms", nargs="+", metavar="ARM", help="run these arms alone")
    run.add_argument("--json", type=Path, help="where the result goes; benchmarks/results/embeddings-SET.json")
    shown = commands.add_parser("table")
    shown.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "table":
        print(table(given.files))
        return
    results = given.json or Path("benchmarks/results") / f"embeddings-{given.set}.json"
    study(given.set, given.folder, given.config, given.clip, given.seeds, given.arms, results)


if __name__ == "__main__":
    main()

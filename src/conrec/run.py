"""The chain: from a log to an evaluated dislike filter, stage by stage."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from conrec.arrays import Array
from conrec.artefacts import read_json, write_json, write_parquet, write_text
from conrec.config import Config, dump_config
from conrec.evaluation.evaluate import evaluate, read_run_data
from conrec.evaluation.predictions import write_candidate_scores, write_predictions
from conrec.evaluation.significance import Bootstrap
from conrec.evaluation.studies import category_groups, code_groups, motivation_study
from conrec.filtering.calibration import calibrate, test_report
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.filter import write_predict_sets
from conrec.items.build import build_items
from conrec.logs.prepare import prepare
from conrec.pipeline import Pipeline, Stage, locked
from conrec.progress import console
from conrec.recommender import Queries
from conrec.report.build import build_report
from conrec.training import Trainer, held_out_choices
from conrec.workspace import Workspace, device_of

__all__ = ["MODELS", "execute", "rows_of"]

MODELS = ("most-disliked", "live-popularity", "sasrec", "lc-rec-negatives", "lc-rec-both")
"""Rows of the table beside CoNRec's own."""
PACKAGES = (
    "conrec", "lmdb", "numpy", "pyarrow", "pydantic", "safetensors", "scipy", "sentence-transformers", "tokenizers",
    "torch", "transformers",
)  # fmt: skip


def conrec_rows(config: Config) -> list[str]:
    """CoNRec after each of its stages; the last one is plain ``conrec``."""
    early = [f"conrec-grpo-{number}" for number in range(1, len(config.grpo.stages))]
    return ["conrec-translation", "conrec-alignment", "conrec-sft", *early, "conrec"]


def rows_of(config: Config) -> list[str]:
    """All rows of the table, in order."""
    return [*MODELS, *conrec_rows(config)]


def execute(config: Config, folder: Path) -> Path:
    """Run every stage that is not finished, and return the path of the report.

    Args:
        config: resolved configuration.
        folder: of the run; created where it does not exist, continued where it does.

    Raises:
        ConrecError: anything that the user can mend.
    """
    torch.set_num_threads(config.run.threads or os.cpu_count() or 1)
    with locked(folder):
        write_text(folder / "config.toml", dump_config(config))
        Pipeline(folder).run(Chain(Workspace(folder, config)).stages())
        write_json(folder / "environment.json", _environment(folder, config))
        return build_report(folder)


class Chain:
    """Lists the stages of a run.

    Args:
        space: the run.
    """

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.config = space.config
        self.trainer = Trainer(space)

    def stages(self) -> list[Stage]:
        """All stages, in order."""
        space, trainer = self.space, self.trainer
        stages = [
            self._data(),
            Stage(
                "items: embeddings, semantic IDs",
                "items/manifest.json",
                ("data/items.parquet", "data/events.parquet", "data/periods.json"),
                tuple(f"items/{name}" for name in ITEM_FILES),
                space.section("encoder", "rqvae"),
                self._items,
            ),
        ]
        stages += [self._predict(name, ()) for name in ("most-disliked", "live-popularity")]
        stages += self._learned("sasrec", lambda: trainer.sasrec("sasrec"), (), ("sasrec", "protocol"))
        start = ""
        for name, section, train in self._conrec():
            stages += self._learned(name, train, (start,) if start else (), (section, *LANGUAGE))
            start = name
        for name in ("lc-rec-negatives", "lc-rec-both"):
            work = self._lc_rec(name)
            stages += self._learned(name, work, ("conrec-translation",), ("sft", *LANGUAGE))
        return [*stages, *self._conclusions()]

    def _data(self) -> Stage:
        settings = self.space.section("data", "protocol", "swing", "candidates")
        files = [self.config.data.events, self.config.data.items]
        stats = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files if path and path.is_file()]
        outputs = tuple(f"data/{name}" for name in DATA_FILES)
        return Stage("data: log, anchors, Swing", "data/manifest.json", (), outputs, [settings, stats], self._prepare)

    def _prepare(self) -> None:
        loaded = prepare(self.config, self.space.folder)
        for line in loaded.counts.lines():
            console.print(f"        {line}", highlight=False)

    def _items(self) -> None:
        space = self.space
        seed = self.trainer.seed("items")
        build_items(space.prepared.items, space.trained_items, self.config, space.folder / "items", seed)

    def _conrec(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Name, section of the configuration and training of each CoNRec stage."""
        trainer = self.trainer
        steps: list[tuple[str, str, Callable[[], None]]] = [
            ("conrec-translation", "translation", lambda: trainer.translation("conrec-translation")),
            ("conrec-alignment", "alignment", lambda: trainer.alignment("conrec-alignment", "conrec-translation")),
            ("conrec-sft", "sft", lambda: trainer.next_negative("conrec-sft", "conrec-alignment")),
        ]
        for number, name in enumerate(conrec_rows(self.config)[3:]):
            steps.append((name, "grpo", self._grpo(name, steps[-1][0], number)))
        return steps

    def _grpo(self, name: str, start: str, number: int) -> Callable[[], None]:
        return lambda: self.trainer.grpo(name, start, number)

    def _lc_rec(self, name: str) -> Callable[[], None]:
        return lambda: self.trainer.lc_rec(name, "conrec-translation")

    def _learned(
        self, name: str, train: Callable[[], None], starts: tuple[str, ...], sections: tuple[str, ...]
    ) -> list[Stage]:
        """Training and prediction of one model."""
        outputs = (f"models/{name}/curve.json", f"models/{name}/model")
        training = Stage(
            f"train {name}",
            f"models/{name}.train.json",
            (*DATA_INPUTS, *ITEM_INPUTS, *(f"models/{start}/model" for start in starts)),
            outputs,
            self.space.section(*sections, "evaluation"),
            train,
        )
        return [training, self._predict(name, outputs[1:])]

    def _predict(self, name: str, model_files: tuple[str, ...]) -> Stage:
        """Predictions and candidate scores of one model for all validation and test anchors."""
        outputs = [f"predictions/{name}.parquet", f"candidate_scores/{name}.parquet"]
        if model_files and name != "sasrec":
            outputs.append(f"models/{name}/context.json")
        settings = self.space.section("prediction", "prompts", "protocol", "evaluation", "popularity")
        inputs = (*DATA_INPUTS, *ITEM_INPUTS, *model_files)
        return Stage(
            f"predict {name}",
            f"predictions/{name}.manifest.json",
            inputs,
            tuple(outputs),
            settings,
            lambda: self._ask(name),
        )

    def _ask(self, name: str) -> None:
        space = self.space
        if name not in MODELS or name.startswith("lc-rec"):
            space.choose_context(name, space.backbone(name))
        model, log, anchors = space.recommender(name), space.prepared.log, space.asked
        k, eligible = self.config.prediction.top_k, self.config.protocol.history_eligible
        ranking = model.predict(log, anchors.queries, k, history_eligible=eligible)
        write_predictions(space.folder / "predictions" / f"{name}.parquet", anchors, ranking, log.item_ids)
        scores = model.score(log, anchors.queries, anchors.candidates)
        write_candidate_scores(space.folder / "candidate_scores" / f"{name}.parquet", anchors, scores, log.item_ids)

    def _conclusions(self) -> list[Stage]:
        """Alignment accuracy, predict sets and thresholds, metrics, motivation study."""
        rows = rows_of(self.config)
        language = [row for row in rows if row not in MODELS[:3]]
        predictions = tuple(f"predictions/{row}.parquet" for row in rows)
        scores = tuple(f"candidate_scores/{row}.parquet" for row in rows)
        models = tuple(f"models/{row}/model" for row in language)
        stages = [
            Stage(
                "four-way choices held out",
                "results/alignment.manifest.json",
                (*DATA_INPUTS, *ITEM_INPUTS, *models),
                ("results/alignment.json", "results/alignment.parquet"),
                self.space.section("alignment", "prompts", "evaluation"),
                lambda: self._alignment(language),
            )
        ]
        filtered = [row for row in self.config.filter.models if row in rows]
        stages += [self._store(row) for row in filtered]
        stages.append(
            Stage(
                "metrics with intervals",
                "results/metrics.manifest.json",
                (*DATA_INPUTS, *predictions, *scores),
                ("results/metrics.json", "results/comparisons.json"),
                self.space.section("evaluation", "protocol"),
                self._metrics,
            )
        )
        stages.append(
            Stage(
                "filter on test anchors",
                "results/filter.manifest.json",
                (*DATA_INPUTS, *ITEM_INPUTS, *predictions, *(f"filter/{row}.json" for row in filtered)),
                ("results/filter.json",),
                self.space.section("evaluation", "prediction", "filter"),
                lambda: self._filter_report(tuple(filtered)),
            )
        )
        stages.append(
            Stage(
                "motivation study",
                "results/motivation.manifest.json",
                (*DATA_INPUTS, *ITEM_INPUTS),
                ("results/motivation.json",),
                self.space.section("evaluation"),
                self._motivation,
            )
        )
        return stages

    def _metrics(self) -> None:
        evaluate(self.space.folder, self.config)

    def _alignment(self, names: list[str]) -> None:
        """Accuracy of every language model on the held-out choices, with an interval over users."""
        space, config = self.space, self.config
        choices = held_out_choices(space)
        users = np.asarray(space.prepared.log.user_ids, dtype=object)[choices.user]
        table: dict[str, object] = {"user_id": users}
        right = np.stack(
            [self._chosen(name, choices.options) == choices.answer for name in names], axis=1
        ) if len(choices) else np.empty((0, len(names)))  # fmt: skip
        figures = Bootstrap.over(choices.user, config.evaluation.bootstraps, config.run.seed).figures(
            right.astype(np.float64)
        )
        values = {}
        for column, (name, figure) in enumerate(zip(names, figures, strict=True)):
            table[name] = right[:, column].astype(bool)
            if figure is not None:
                values[name] = {"value": figure.value, "low": figure.low, "high": figure.high}
        write_parquet(space.folder / "results" / "alignment.parquet", pa.table(table))
        summary = {"chance": 0.25, "choices": len(choices), "users": len(np.unique(choices.user)), "models": values}
        write_json(space.folder / "results" / "alignment.json", summary)

    def _chosen(self, name: str, options: Array) -> Array:
        return self.space.generative(self.space.backbone(name), "both").choose(options)

    def _store(self, name: str) -> Stage:
        """Predict sets of every user as of the end of the log, and the threshold from validation anchors."""
        inputs = [*DATA_INPUTS, *ITEM_INPUTS, f"predictions/{name}.parquet"]
        if name not in MODELS[:2]:
            inputs.append(f"models/{name}/model")
        if name not in MODELS[:3]:
            inputs.append(f"models/{name}/context.json")
        return Stage(
            f"filter store {name}",
            f"filter/{name}.manifest.json",
            tuple(inputs),
            (f"filter/{name}", f"filter/{name}.json"),
            self.space.section("filter", "prediction", "prompts", "protocol", "popularity"),
            lambda: self._write_store(name),
        )

    def _write_store(self, name: str) -> None:
        space, log = self.space, self.space.prepared.log
        catalogue = FilterCatalogue.load(space.folder)
        users = np.arange(log.n_users, dtype=np.int32)
        end = space.prepared.periods.end
        queries = Queries(users, np.full(len(users), end, dtype=np.int64))
        k, eligible = self.config.prediction.predict_set, self.config.protocol.history_eligible
        ranking = space.recommender(name).predict(log, queries, k, history_eligible=eligible)
        write_predict_sets(space.folder, name, log.user_ids, ranking, catalogue, predict_set=k, written_at=end)
        calibrate(space.folder, name, read_run_data(space.folder), catalogue, self.config)

    def _filter_report(self, names: tuple[str, ...]) -> None:
        folder = self.space.folder
        test_report(folder, names, read_run_data(folder), FilterCatalogue.load(folder), self.config)

    def _motivation(self) -> None:
        space = self.space
        data = space.prepared
        test = data.anchors.of_split("test")
        groupings = {"first code": code_groups(space.items.semantic_ids.codes)}
        categories = category_groups(data.items["category"].to_pylist())
        if categories is not None:
            groupings["category"] = categories
        study = motivation_study(
            data.log,
            test,
            space.gts(test),
            groupings,
            bootstraps=self.config.evaluation.bootstraps,
            seed=self.config.run.seed,
        )
        write_json(space.folder / "results" / "motivation.json", study)


DATA_FILES = ("events.parquet", "items.parquet", "anchors.parquet", "periods.json", "counts.json", "swing.parquet")
ITEM_FILES = (
    "embeddings.safetensors", "rqvae.safetensors", "semantic_ids.parquet", "rebuilt.safetensors", "diagnostics.json",
)  # fmt: skip
DATA_INPUTS = tuple(f"data/{name}" for name in DATA_FILES if name != "counts.json")
ITEM_INPUTS = ("items/semantic_ids.parquet", "items/rebuilt.safetensors")
LANGUAGE = ("backbone", "prompts", "protocol", "prediction")
"""Sections that every stage of the language model depends on."""


def _environment(folder: Path, config: Config) -> dict[str, object]:
    """Versions, threads, seed and data hashes."""
    counts = read_json(folder / "data" / "counts.json")
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device_of(config),
        "seed": config.run.seed,
        "versions": versions,
        "data": {"source": counts["source"], "hashes": counts["hashes"]},
    }

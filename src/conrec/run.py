"""The chain: from a log to an evaluated dislike filter, stage by stage."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from conrec.artefacts import read_json, write_json, write_text
from conrec.baselines.registry import REGISTRY, TRANSLATION, Entry, trained_row
from conrec.conclusions import Conclusions
from conrec.config import Config, dump_config, load_config
from conrec.costs import write_costs
from conrec.errors import ConfigError, NotApplicableError, did_you_mean
from conrec.evaluation.predictions import write_candidate_scores, write_predictions
from conrec.folders import locked
from conrec.items.build import build_items
from conrec.logs.costs import Costs
from conrec.logs.prepare import STEPS, prepare
from conrec.logs.sources import fetch, hash_files, source_files
from conrec.pipeline import Pipeline, Stage, skipped
from conrec.processes import ALONE, Processes, joined
from conrec.progress import console
from conrec.report.build import build_report
from conrec.rows import ALIGNMENT, BASELINES, conrec_rows, grpo_rows, rows_of
from conrec.training import Trainer, unfinished
from conrec.workspace import DATA_FILES, DATA_INPUTS, EMBEDDINGS, ITEM_INPUTS, Workspace, device_of

__all__ = ["Chain", "execute"]

PACKAGES = (
    "conrec", "lmdb", "numpy", "pyarrow", "pydantic", "safetensors", "scipy", "sentence-transformers", "tokenizers",
    "torch", "transformers",
)  # fmt: skip


def execute(config: Config, folder: Path) -> Path:
    """Run every stage that is not finished, and return the path of the report.

    Under a launcher of several processes (``torchrun``) the GRPO stages are shared, and all else is the first one's.

    Args:
        config: resolved configuration.
        folder: of the run; created where it does not exist, continued where it does.

    Raises:
        ConrecError: anything that the user can mend.
    """
    with joined(device_of(config)) as processes:
        torch.set_num_threads(config.run.threads or len(os.sched_getaffinity(0)))
        chain = Chain(Workspace(folder, config), processes)
        if not processes.first:
            processes.decide()  # the first process has checked the run and fetched its data
            Pipeline(folder, processes).run(chain.stages())
            return folder / "report.html"
        _check(config, folder)
        with locked(folder):
            stages = chain.stages()
            processes.decide()
            pipeline = Pipeline(folder, processes)
            # Only behind the first stage: a log that cannot be read leaves an earlier run in this folder as it was.
            pipeline.run(stages, lambda: _describe(pipeline, config, stages))
            return build_report(folder)


def _describe(pipeline: Pipeline, config: Config, stages: Sequence[Stage]) -> None:
    """Take away what another configuration left, then write the configuration and the environment.

    Answers and figures that will be made anew go before any stage does: whoever reads the run while it is made, or
    after a kill, does not meet old ones under the new configuration. Models and filter stores stay until their turn.
    """
    folder = pipeline.folder
    for stage in pipeline.outdated(stages):
        if stage.manifest.startswith(("predictions/", "results/")):
            pipeline.clear(stage.manifest, stage.outputs)
    pipeline.clear_unlisted("results", stages)
    (folder / "report.html").unlink(missing_ok=True)
    write_text(folder / "config.toml", dump_config(config))
    environment = {**_environment(folder, config), "processes": pipeline.processes.world}
    write_json(folder / "environment.json", environment)
    known = set(rows_of(config))
    for kind in ("predictions", "candidate_scores"):
        for path in (folder / kind).glob("conrec-grpo-*.parquet"):
            if path.stem not in known and path.stem.removeprefix("conrec-grpo-").isdecimal():
                path.unlink()


def _check(config: Config, folder: Path) -> None:
    """Refuse before any work what would fail or surprise after an hour of it."""
    device_of(config)
    known = [*BASELINES, *conrec_rows(config)]
    for name in config.filter.models:
        if name not in known:
            raise ConfigError(f"there is no row {name!r}", where="filter.models", mend=did_you_mean(name, known))
    if (folder / "config.toml").is_file() and load_config(file=folder / "config.toml").data != config.data:
        raise ConfigError(
            "this run was made from other data", where=str(folder), mend="Give another --out, or remove the folder."
        )


class Chain:
    """Lists the stages of a run.

    Args:
        space: the run.
        processes: those that share the GRPO stages.
    """

    def __init__(self, space: Workspace, processes: Processes = ALONE) -> None:
        self.space = space
        self.config = space.config
        self.processes = processes
        self.trainer = Trainer(space, processes)

    def stages(self) -> list[Stage]:
        """All stages, in order."""
        space = self.space
        stages = [
            self.data(),
            Stage(
                "items: embeddings, semantic IDs",
                "items/manifest.json",
                ("data/items.parquet", "data/events.parquet", "data/periods.json"),
                tuple(f"items/{name}" for name in ITEM_FILES),
                space.section("encoder", "rqvae", "semantic_ids"),
                self._items,
            ),
        ]
        rows, start = rows_of(self.config), ""
        for entry in (REGISTRY[name] for name in rows if name in REGISTRY and not REGISTRY[name].start):
            stages += self._baseline(entry)
        tuned = [REGISTRY[name] for name in rows if name in REGISTRY and REGISTRY[name].start]
        for name, section, train in self._conrec():
            if name not in rows and not (tuned and name == TRANSLATION):
                continue
            shared = section == "grpo"
            starts = (start,) if start else ()
            learned = self._learned(name, train, starts, ITEM_INPUTS, (section, *LANGUAGE), shared)
            stages += learned if name in rows else learned[:1]
            start = name
        trained = set(rows)
        for entry in tuned:
            if entry.start in REGISTRY and entry.start not in trained:
                stages += self._baseline(REGISTRY[entry.start])[:1]
                trained.add(entry.start)
            stages += self._baseline(entry)
        return [*stages, *Conclusions(space).stages()]

    def data(self) -> Stage:
        """The first stage; its files are fetched where they are not there yet, and belong to its settings."""
        data = self.config.data
        if not source_files(data):
            fetch(data.source, data)
        files = hash_files(source_files(data))
        settings = {**self.space.section("data", "protocol", "swing", "candidates"), "files": files}
        outputs = tuple(f"data/{name}" for name in DATA_FILES)
        return Stage("data: log, anchors, Swing", "data/manifest.json", (), outputs, settings, self._prepare)

    def _prepare(self) -> None:
        costs = Costs(STEPS)
        counts = prepare(self.config, self.space.folder, costs=costs)
        for line in (*counts.lines(), *costs.lines()):
            console.print(f"        {line}", markup=False, highlight=False, soft_wrap=True)

    def _items(self) -> None:
        space = self.space
        seed = self.trainer.seed("items")
        vectors = space.collaborative_vectors(seed)
        build_items(space.prepared.items, space.trained_items, self.config, space.folder / "items", seed, vectors)

    def _conrec(self) -> list[tuple[str, str, Callable[[], None]]]:
        """Name, section of the configuration and training of each CoNRec stage."""
        trainer = self.trainer
        steps: list[tuple[str, str, Callable[[], None]]] = [
            (TRANSLATION, "translation", lambda: trainer.translation(TRANSLATION))
        ]
        if self.config.alignment.samples:
            steps.append((ALIGNMENT, "alignment", lambda: trainer.alignment(ALIGNMENT, TRANSLATION)))
        start = steps[-1][0]
        steps.append(("conrec-sft", "sft", lambda: trainer.next_negative("conrec-sft", start)))
        for number, name in enumerate(grpo_rows(self.config)):
            steps.append((name, "grpo", self._grpo(name, steps[-1][0], number)))
        return steps

    def _grpo(self, name: str, start: str, number: int) -> Callable[[], None]:
        def train() -> None:
            with self.processes.sharing_threads():
                self.trainer.grpo(name, start, number)

        return train

    def _baseline(self, entry: Entry) -> list[Stage]:
        """The stages of a baseline: its training, where it has one, and its predictions."""
        if entry.counted:
            return [self._predict(entry.name, _item_inputs(entry), entry.sections)]
        starts = (entry.start,) if entry.start else ()
        sections = (*entry.sections, "protocol")
        train = partial(self.trainer.baseline, entry.name)
        return self._learned(entry.name, train, starts, _item_inputs(entry), sections)

    def _learned(
        self,
        name: str,
        train: Callable[[], None],
        starts: tuple[str, ...],
        items: tuple[str, ...],
        sections: tuple[str, ...],
        shared: bool = False,
    ) -> list[Stage]:
        """Training and prediction of one model; both read the same of the items, and both follow its settings.

        A setting may act at prediction alone, and leave what is trained as it was to the byte.
        """
        outputs = (f"models/{name}/curve.json", f"models/{name}/model")
        training = Stage(
            f"train {name}",
            f"models/{name}.train.json",
            (*DATA_INPUTS, *items, *(f"models/{start}/model" for start in starts)),
            outputs,
            self.space.section(*sections, "evaluation.top_k"),
            train,
            shared,
            partial=unfinished(name),
        )
        return [training, self._predict(name, (*items, *outputs[1:]), sections)]

    def _predict(self, name: str, files: tuple[str, ...], sections: tuple[str, ...]) -> Stage:
        """Predictions and candidate scores of one model for all validation and test anchors."""
        outputs = [f"predictions/{name}.parquet", f"candidate_scores/{name}.parquet"]
        settings = self.space.section("prediction", "prompts", "protocol", *sections)
        inputs = (*DATA_INPUTS, *files)
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
        if (why := skipped(space.folder / "models" / f"{name}.train.json")) is not None:
            raise NotApplicableError(why)
        model, log, anchors = trained_row(space, name), space.prepared.log, space.asked
        k, eligible = self.config.prediction.top_k, self.config.protocol.history_eligible
        unranked = getattr(model, "unranked", "")
        begin = time.perf_counter()
        ranking = model.predict(log, anchors.queries, k, history_eligible=eligible)
        ranked = time.perf_counter()
        write_predictions(space.folder / "predictions" / f"{name}.parquet", anchors, ranking, log.item_ids, unranked)
        between = time.perf_counter()
        scores = model.score(log, anchors.queries, anchors.candidates)
        seconds = time.perf_counter() - between if unranked else ranked - begin
        write_costs(space.folder, name, model, seconds, len(anchors))
        write_candidate_scores(space.folder / "candidate_scores" / f"{name}.parquet", anchors, scores, log.item_ids)


ITEM_FILES = (
    "embeddings.safetensors", "fusion.safetensors", "quantiser.safetensors", "semantic_ids.parquet", "trie.safetensors",
    "rebuilt.safetensors", "diagnostics.json",
)  # fmt: skip
LANGUAGE = ("backbone", "prompts", "protocol", "prediction")
"""Sections that every stage of the language model depends on."""


def _item_inputs(entry: Entry) -> tuple[str, ...]:
    """The files of items that a baseline reads, in training and in prediction."""
    named = bool(entry.start) or entry.generative or "semantic IDs" in entry.needs
    return (*(ITEM_INPUTS if named else ()), *((EMBEDDINGS,) if "embeddings" in entry.needs else ()))


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

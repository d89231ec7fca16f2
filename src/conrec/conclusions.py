"""What a run concludes from its models: four-way choices, predict sets, thresholds, metrics, the motivation study."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from conrec.arrays import Array
from conrec.artefacts import write_json, write_parquet
from conrec.baselines.registry import REGISTRY, counted, generative, trained_row
from conrec.errors import NotApplicableError
from conrec.evaluation.evaluate import evaluate, read_run_data
from conrec.evaluation.predictions import why_unranked
from conrec.evaluation.significance import Bootstrap
from conrec.evaluation.studies import category_groups, code_groups, motivation_study
from conrec.filtering.analysis.analyse import ANALYSIS, analyse_filter
from conrec.filtering.calibrating.calibration import calibrate
from conrec.filtering.calibrating.testing import test_report
from conrec.filtering.catalogue import FilterCatalogue
from conrec.filtering.predict_sets import write_predict_sets
from conrec.filtering.stores.base import VERSION as LAYOUT
from conrec.llm.samples import Choices
from conrec.pipeline import Stage, skipped
from conrec.predicting.plan import weights_hash
from conrec.protocol import NEGATIVE, POSITIVE
from conrec.recommender import Queries
from conrec.rows import rows_of
from conrec.training import held_out_choices
from conrec.workspace import DATA_INPUTS, EMBEDDINGS, ITEM_INPUTS, Workspace

__all__ = ["Conclusions"]


class Conclusions:
    """The stages after the last model.

    Args:
        space: the run.
    """

    def __init__(self, space: Workspace) -> None:
        self.space = space
        self.config = space.config

    def stages(self) -> list[Stage]:
        """Alignment accuracy, predict sets and thresholds, metrics, motivation study."""
        rows = rows_of(self.config)
        language = [row for row in rows if generative(row)]
        predictions = tuple(f"predictions/{row}.parquet" for row in rows)
        scores = tuple(f"candidate_scores/{row}.parquet" for row in rows)
        models = tuple(f"models/{row}/model" for row in language)
        alignment = [
            Stage(
                "four-way choices held out",
                "results/alignment.manifest.json",
                (*DATA_INPUTS, *ITEM_INPUTS, *models),
                ("results/alignment.json", "results/alignment.parquet"),
                self.space.section("alignment", "prompts", "evaluation"),
                lambda: self._alignment(language),
            )
        ]
        stages = alignment if language else []
        filtered = [row for row in dict.fromkeys(self.config.filter.models) if row in rows]
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
        stages += self._filter_stages(tuple(filtered)) if filtered else []
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

    def _filter_stages(self, filtered: tuple[str, ...]) -> list[Stage]:
        """What the filters of some rows do on test anchors, and beside the rules that platforms use."""
        predictions = tuple(f"predictions/{row}.parquet" for row in filtered)
        calibrated = tuple(f"filter/{row}.json" for row in filtered)
        return [
            Stage(
                "filter on test anchors",
                "results/filter.manifest.json",
                (*DATA_INPUTS, *ITEM_INPUTS, *predictions, *calibrated),
                ("results/filter.json",),
                self.space.section("evaluation", "prediction", "filter"),
                lambda: self._filter_report(filtered),
            ),
            Stage(
                "filter against rules",
                "results/filter_analysis.manifest.json",
                (*DATA_INPUTS, *ITEM_INPUTS, EMBEDDINGS, *predictions, *calibrated),
                (ANALYSIS,),
                self.space.section("evaluation", "prediction", "filter", "baselines.popularity"),
                lambda: self._filter_analysis(filtered),
            ),
        ]

    def _metrics(self) -> None:
        evaluate(self.space.folder, self.config)

    def _alignment(self, names: list[str]) -> None:
        """Accuracy of every language model on the held-out choices, beside rules that look at the items alone."""
        space = self.space
        choices = held_out_choices(space)
        chosen = {name: self._chosen(name, choices.options) for name in names}
        right = {name: row == choices.answer for name, row in chosen.items()}
        table: dict[str, object] = {"user_id": np.asarray(space.prepared.log.user_ids, dtype=object)[choices.user]}
        write_parquet(space.folder / "results" / "alignment.parquet", pa.table({**table, **right}))
        summary = {
            "chance": 0.25,
            "choices": len(choices),
            "users": len(np.unique(choices.user)),
            "models": self._figures(choices, right),
            "item_only": self._figures(choices, self._item_rules(choices)),
        }
        write_json(space.folder / "results" / "alignment.json", summary)

    def _chosen(self, name: str, options: Array) -> Array:
        return self.space.generative(self.space.backbone(name), "both").choose(options)

    def _item_rules(self, choices: Choices) -> dict[str, Array]:
        """How right rules are that never see a user: by count of dislikes, and by share of dislikes, in training.

        An answer must have been disliked before and the others need not, so that even counting beats chance.
        """
        data = self.space.prepared
        training = data.log.before(data.periods.validation)
        counts = {
            sign: np.bincount(training.item[training.feedback == sign], minlength=training.n_items)
            for sign in (NEGATIVE, POSITIVE)
        }
        share = (counts[NEGATIVE] + 1) / (counts[NEGATIVE] + counts[POSITIVE] + 2)
        rules = {"most disliked": counts[NEGATIVE], "dislike share": share}
        return {name: self._first_best(value[choices.options], choices.answer) for name, value in rules.items()}

    @staticmethod
    def _first_best(scores: Array, answer: Array) -> Array:
        """1/n where the answer is among n options with the highest score, else 0."""
        best = scores == scores.max(axis=1, keepdims=True)
        hit: Array = best[np.arange(len(answer)), answer] / best.sum(axis=1)
        return hit

    def _figures(self, choices: Choices, right: dict[str, Array]) -> dict[str, dict[str, float]]:
        """Mean of each with an interval over users; empty where no choice could be made."""
        if not len(choices):
            return {}
        config = self.config
        bootstrap = Bootstrap.over(choices.user, config.evaluation.bootstraps, config.run.seed)
        figures = bootstrap.figures(np.stack([row.astype(np.float64) for row in right.values()], axis=1))
        pairs = zip(right, figures, strict=True)
        return {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in pairs if one}

    def _store(self, name: str) -> Stage:
        """Predict sets of every user as of the end of the log, and the threshold from validation anchors."""
        inputs = [*DATA_INPUTS, *ITEM_INPUTS, f"predictions/{name}.parquet"]
        if not counted(name):
            inputs.append(f"models/{name}/model")
        # A setting of a row may act at prediction alone, as for its predictions.
        own = REGISTRY[name].sections if name in REGISTRY else ()
        return Stage(
            f"filter store {name}",
            f"filter/{name}.manifest.json",
            tuple(inputs),
            (f"filter/{name}", f"filter/{name}.json"),
            {**self.space.section("filter", "prediction", "prompts", "protocol", *own), "store": LAYOUT},
            lambda: self._write_store(name),
        )

    def _write_store(self, name: str) -> None:
        space, log = self.space, self.space.prepared.log
        predictions = space.folder / "predictions"
        if why := skipped(predictions / f"{name}.manifest.json") or why_unranked(predictions / f"{name}.parquet"):
            raise NotApplicableError(why)
        catalogue = FilterCatalogue.load(space.folder)
        catalogue.save_table(space.folder)
        users = np.arange(log.n_users, dtype=np.int32)
        end = space.prepared.periods.end
        queries = Queries(users, np.full(len(users), end, dtype=np.int64))
        k, eligible = self.config.prediction.predict_set, self.config.protocol.history_eligible
        ranking = trained_row(space, name).predict(log, queries, k, history_eligible=eligible)
        version = weights_hash(space.folder, name)
        write_predict_sets(
            space.folder, name, log.user_ids, ranking, catalogue, predict_set=k, model_version=version, predicted_at=end
        )
        calibrate(space.folder, name, read_run_data(space.folder), catalogue, self.config)

    def _filter_report(self, filtered: tuple[str, ...]) -> None:
        folder, names = self.space.folder, self._with_filter(filtered)
        test_report(folder, names, read_run_data(folder), FilterCatalogue.load(folder), self.config)

    def _filter_analysis(self, filtered: tuple[str, ...]) -> None:
        analyse_filter(self.space.folder, self.config, self._with_filter(filtered))

    def _with_filter(self, filtered: tuple[str, ...]) -> tuple[str, ...]:
        """The rows that have a filter: one that was left out for the log, or ranks nothing, has none.

        Raises:
            NotApplicableError: no row has one.
        """
        folder = self.space.folder / "filter"
        names = tuple(name for name in filtered if (folder / f"{name}.json").is_file())
        if names:
            return names
        reasons = ((name, skipped(folder / f"{name}.manifest.json")) for name in filtered)
        raise NotApplicableError("no row has a filter: " + "; ".join(f"{name}: {why}" for name, why in reasons))

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

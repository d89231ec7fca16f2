"""One trial of a search: fit with some settings, judge on validation anchors. There is no test period to be seen."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from conrec.artefacts import disk_full
from conrec.baselines.registry import baseline_class
from conrec.comparing.grids import Grid, Point, with_settings
from conrec.comparing.journal import Trial
from conrec.config import Config
from conrec.errors import ArtefactError, ConfigError, MissingExtraError, NotApplicableError
from conrec.evaluation.metrics import candidate_accuracy, fhr, mean
from conrec.logs.anchors import Anchors
from conrec.logs.prepare import Prepared, read_prepared
from conrec.logs.schema import SPLITS
from conrec.recommender import Recommender
from conrec.seeds import generator
from conrec.workspace import Workspace

__all__ = ["Trials", "without_test"]


def without_test(prepared: Prepared) -> Prepared:
    """A prepared log that ends where its test period begins, with neither events nor anchors of it."""
    anchors = prepared.anchors
    return replace(
        prepared,
        log=prepared.log.before(prepared.periods.test),
        anchors=anchors.select(anchors.split != SPLITS.index("test")),
    )


@dataclass(frozen=True, slots=True)
class Trials:
    """Everything that the trials on one run folder share.

    Attributes:
        folder: of a run whose data and items stages are finished.
        prepared: its log without the test period.
        judged: validation anchors on which trials are compared.
    """

    folder: Path
    prepared: Prepared
    judged: Anchors

    @classmethod
    def on(cls, folder: Path, config: Config) -> Trials:
        """Read a run's log, and draw at most ``search.anchors`` of its validation anchors.

        Raises:
            ConfigError: there is none, so that no settings can be judged.
        """
        prepared = without_test(read_prepared(folder))
        anchors = prepared.anchors.of_split("validation")
        if not len(anchors):
            raise ConfigError(
                "the validation period of this log has no anchor, so that no settings can be judged",
                where="protocol",
                mend="Set protocol.validation_cut lower, or test_cut higher; or search on a larger log.",
            )
        if len(anchors) > config.search.anchors:
            order = generator(config.run.seed, "search anchors").permutation(len(anchors))
            anchors = anchors.select(np.sort(order[: config.search.anchors]))
        return cls(folder, prepared, anchors)

    def run(self, config: Config, row: str, grid: Grid, point: Point) -> Trial:
        """Fit and judge a row with the settings of a point.

        Raises:
            NotApplicableError: the log lacks what the row needs.
            MissingExtraError: a package that the row needs is not installed.
            ArtefactError: what the row reads of the run is damaged.
            OSError: the disk is full.
        """
        begin = time.perf_counter()

        def seconds() -> float:
            return round(time.perf_counter() - begin, 2)

        try:
            value = self._value(with_settings(config, grid.section, point), row)
        except (NotApplicableError, MissingExtraError, ArtefactError):
            raise
        except Exception as error:
            if disk_full(error):
                raise
            return Trial(point, None, f"{type(error).__name__}: {error}", seconds())
        if not math.isfinite(value):
            return Trial(point, None, f"the figure that it is judged by is {value}", seconds())
        return Trial(point, value, "", seconds())

    def _value(self, config: Config, row: str) -> float:
        """FHR@K of a newly fitted row on the anchors that are judged; candidate accuracy where it ranks nothing."""
        space = Workspace(self.folder, config)
        space.prepared = self.prepared
        model: Recommender = baseline_class(row).fit(space, row)
        if getattr(model, "unranked", ""):
            scores = model.score(self.prepared.log, self.judged.queries, self.judged.candidates)
            return round(mean(candidate_accuracy(scores, self.judged.candidates, self.judged.next_item)), 6)
        k, eligible = config.evaluation.top_k, config.protocol.history_eligible
        ranking = model.predict(self.prepared.log, self.judged.queries, k, history_eligible=eligible)
        return round(float(fhr(ranking.item, self.judged.future_negatives).mean()), 6)

"""The best settings of each baseline: the same number of trials for every row, judged on validation anchors.

Data and items are prepared once, in a run folder that all trials share. Every trial is written down as it ends, and
the next one follows from those before it (`conrec.comparing.proposals`): a search that is killed and started again
makes the same trials and the same choice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from conrec.artefacts import read_json
from conrec.baselines.registry import REGISTRY
from conrec.comparing.chosen import with_chosen, write_chosen
from conrec.comparing.describe import known_row
from conrec.comparing.grids import Grid, grid_of
from conrec.comparing.journal import Journal, read_journal
from conrec.comparing.proposals import propose
from conrec.comparing.trials import Trials
from conrec.config import Config
from conrec.errors import MissingExtraError, NotApplicableError
from conrec.folders import locked
from conrec.items.diagnosis.figures import Listing
from conrec.pipeline import Pipeline
from conrec.progress import console
from conrec.rows import BASELINES
from conrec.run import Chain
from conrec.workspace import Workspace

__all__ = ["Found", "search"]

RUN = "run"
"""The run folder below that of a search."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        journals: the trials of each row, in the order of the table.
        budget: how many of them count.
        chosen: path of ``chosen.toml``.
    """

    journals: tuple[Journal, ...]
    budget: int
    chosen: Path

    def to_json(self) -> dict[str, Any]:
        """For each row its trials, the configured and the best value, the best settings; or why there are none."""
        rows: dict[str, Any] = {}
        for one in self.journals:
            best, first = one.best(self.budget), one.trials[0].value if one.trials else None
            tried = one.trials[: self.budget]
            rows[one.row] = {
                "trials": len(tried),
                "failed": sum(trial.value is None for trial in tried),
                "configured": first,
                "best": None if best is None else best.value,
                "settings": None if best is None else dict(best.settings),
                "seconds": round(sum(trial.seconds for trial in tried), 2),
                "not_applicable": one.not_applicable or None,
            }
        return {"trials": self.budget, "rows": rows, "chosen": str(self.chosen)}

    def listing(self) -> Listing:
        """The same for a terminal."""
        rows = []
        for row, one in self.to_json()["rows"].items():
            settings = ", ".join(f"{name} = {value}" for name, value in (one["settings"] or {}).items())
            note = settings or one["not_applicable"] or ("every trial failed" if one["failed"] else "no settings")
            tried = f"{one['trials']}" + (f", {one['failed']} failed" if one["failed"] else "")
            numbers = ("–" if value is None else f"{value:.4f}" for value in (one["configured"], one["best"]))
            rows.append((row, tried, note, *numbers, f"{one['seconds']:,.0f}"))
        heads = ("row", "trials", "best settings", "configured", "best", "seconds")
        note = "Configured and best: FHR@K on validation anchors, or candidate accuracy of rows that rank nothing."
        return Listing("Search over settings", heads, tuple(rows), note, words=True)


def search(config: Config, rows: Sequence[str] | None, folder: Path, trials: int | None = None) -> Found:
    """Choose the settings of rows by their validation FHR@K.

    Args:
        config: the settings to begin with; what a row starts from is trained with what was chosen for that.
        rows: names of baselines; None: all.
        folder: gets ``ROW.json`` for each row, ``chosen.toml``, and the run that trials share. Rows that were searched
            here before stay in ``chosen.toml``.
        trials: for each row; None: ``search.trials``. More than before adds to what was tried.

    Raises:
        ConfigError: there is no such row.
        MissingExtraError: Optuna is not installed.
        ArtefactError: trials in the folder were made on other data or with other settings.
        ConrecError: anything else that the user can mend.
    """
    asked = BASELINES if rows is None else {known_row(name, "ROW") for name in rows}
    budget = trials or config.search.trials
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search")
    torch.set_num_threads(config.run.threads or len(os.sched_getaffinity(0)))
    with locked(folder):
        searcher = _Searcher(config, folder, budget)
        journals = [searcher.search(row) for row in BASELINES if row in asked]
        return Found(tuple(journals), budget, searcher.write())


class _Searcher:
    """Searches one row after another in one folder."""

    def __init__(self, config: Config, folder: Path, budget: int) -> None:
        self.config = config.model_copy(update={"run": config.run.model_copy(update={"conrec": False})})
        self.folder, self.run, self.budget = folder, folder / RUN, budget
        self.prepared = self._prepare(("data/manifest.json", "items/manifest.json"))
        self.trials = Trials.on(self.run, self.config)

    def search(self, row: str) -> Journal:
        """Make the trials of a row that are not made yet."""
        grid = grid_of(self.config, row)
        path = self.folder / f"{row}.json"
        journal = read_journal(path, row, self._depends(row, grid))
        while not journal.not_applicable and len(journal.trials) < self.budget:
            point = propose(grid, journal.trials, row, self.config.run.seed)
            if point is None:
                break
            try:
                journal.trials.append(self.trials.run(self._chosen(_starts(row)), row, grid, point))
            except NotApplicableError as error:
                journal.not_applicable = str(error)
            journal.write(path)
            self._say(journal, grid)
        self.write()
        return journal

    def write(self) -> Path:
        """Write the best settings of all rows that were searched in this folder, now or before."""
        return write_chosen(self.folder, self._chosen(BASELINES))

    def _prepare(self, manifests: Sequence[str], row: str | None = None) -> list[str]:
        """Finish some stages of the run that ``row`` belongs to; what they depend on, as hashes."""
        config = self.config if row is None else self._chosen(_starts(row))
        rows = () if row is None else (row,)
        config = config.model_copy(update={"baselines": config.baselines.model_copy(update={"rows": rows})})
        with locked(self.run):
            stages = [one for one in Chain(Workspace(self.run, config)).stages() if one.manifest in manifests]
            Pipeline(self.run).run(stages)
        return [str(read_json(self.run / name)["key"]) for name in manifests]

    def _depends(self, row: str, grid: Grid) -> dict[str, Any]:
        """What the trials of a row depend on, in the words of an error; what it starts from is trained here."""
        starts = tuple(f"models/{name}.train.json" for name in _starts(row))
        prepared = [*self.prepared, *(self._prepare(starts, row) if starts else ())]
        settings = Workspace(self.run, self.config).section(*REGISTRY[row].sections, "protocol", "evaluation")
        settings.pop("threads")  # which change results in the last digits alone
        return {
            "data, items or start": prepared,
            "settings": settings,
            "grids": {name: list(values) for name, values in grid.fields.items()},
            "validation anchors": len(self.trials.judged),
        }

    def _chosen(self, rows: Sequence[str]) -> Config:
        """The configuration with what was chosen so far for some rows."""
        config = self.config
        for row in rows:
            path = self.folder / f"{row}.json"
            if row in REGISTRY and path.is_file():
                depends = read_json(path).get("depends", {})
                config = with_chosen(config, read_journal(path, row, depends), self.budget)
        return config

    def _say(self, journal: Journal, grid: Grid) -> None:
        """One line for the last trial."""
        if journal.not_applicable:
            console.print(f"{journal.row}: not for this log: {journal.not_applicable}", markup=False, highlight=False)
            return
        one, number = journal.trials[-1], len(journal.trials)
        head = f"[{number:>2}/{min(self.budget, grid.size)}] {journal.row}"
        settings = ", ".join(f"{name} = {value}" for name, value in one.settings.items()) or "no settings"
        outcome = f"failed: {one.error}" if one.value is None else f"{one.value:.4f}"
        line = f"{head}: {settings}: {outcome} ({one.seconds:.1f} s)"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _starts(row: str) -> tuple[str, ...]:
    """The rows whose weights a row starts from, the first of them first."""
    start = REGISTRY[row].start
    if not start:
        return ()
    return (*(_starts(start) if start in REGISTRY else ()), start)

"""The best settings of each baseline: the same number of trials for every row, judged on validation anchors.

Data and items are prepared once, in a run folder that all trials share; one folder is of one log. Every trial is
written down as it ends, and the next one follows from those before it (`conrec.comparing.proposals`): a search that is
killed and started again makes the same trials and the same choice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from conrec import __version__
from conrec.artefacts import hash_json
from conrec.baselines.registry import REGISTRY
from conrec.comparing.chosen import with_chosen, write_chosen
from conrec.comparing.describe import known_row
from conrec.comparing.grids import grid_of
from conrec.comparing.journal import Journal, keep_aside, parts_that_differ, read_journal
from conrec.comparing.proposals import propose
from conrec.comparing.trials import Trials
from conrec.config import Config
from conrec.errors import ArtefactError, MissingExtraError, NotApplicableError
from conrec.folders import locked
from conrec.items.diagnosis.figures import Listing
from conrec.pipeline import Pipeline, Stage
from conrec.progress import console
from conrec.rows import BASELINES
from conrec.run import Chain
from conrec.workspace import Workspace

__all__ = ["Found", "search"]

RUN = "run"
"""The run folder below that of a search."""
SHARED = ("data", "items")
"""What all journals of a folder have in common."""


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
        trials: for each of ``rows``; None: ``search.trials``. More than before adds to what was tried. Of rows that
            are not asked for, all trials count.

    Raises:
        ConfigError: there is no such row, or no validation anchor.
        MissingExtraError: Optuna is not installed.
        ArtefactError: trials in the folder were made on other data, or those of a row with other settings.
        ConrecError: anything else that the user can mend.
    """
    asked = BASELINES if rows is None else {known_row(name, "ROW") for name in rows}
    budget = trials or config.search.trials
    if find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search")
    torch.set_num_threads(config.run.threads or len(os.sched_getaffinity(0)))
    with locked(folder):
        searcher = _Searcher(config, folder, dict.fromkeys(asked, budget))
        journals = [searcher.search(row, budget) for row in BASELINES if row in asked]
        return Found(tuple(journals), budget, searcher.write())


class _Searcher:
    """Searches one row after another in one folder.

    Args:
        config: to begin with.
        folder: of the search.
        budgets: how many trials count of a row; of one that is not there, all.

    Raises:
        ArtefactError: the folder has trials on other data.
    """

    def __init__(self, config: Config, folder: Path, budgets: Mapping[str, int]) -> None:
        self.config = config.model_copy(update={"run": config.run.model_copy(update={"conrec": False})})
        self.folder, self.run, self.budgets = folder, folder / RUN, budgets
        self.left_out: set[str] = set()
        shared = self._stages()
        self.shared = {part: _identity(shared[f"{part}/manifest.json"], part) for part in SHARED}
        for row in BASELINES:
            self._refuse_other_data(row)
        self._finish([f"{part}/manifest.json" for part in SHARED])
        self.trials = Trials.on(self.run, self.config)

    def search(self, row: str, budget: int) -> Journal:
        """Make the trials of a row that are not made yet."""
        grid = grid_of(self.config, row)
        journal, path = self._resumed(row), self._journal(row)
        starts, config = [_manifest(name) for name in _starts(row)], self._chosen(_starts(row))
        while not journal.not_applicable and len(journal.trials) < budget:
            point = propose(grid, journal.trials, row, self.config.run.seed)
            if point is None:
                break
            if starts:
                self._finish(starts, row)
                starts = []
            try:
                journal.trials.append(self.trials.run(config, row, grid, point))
            except NotApplicableError as error:
                journal.not_applicable = str(error)
            journal.write(path)
            self._say(journal, min(budget, grid.size))
        self.write()
        return journal

    def write(self) -> Path:
        """Write the best settings of all rows that were searched in this folder, now or before."""
        return write_chosen(self.folder, self._chosen(BASELINES))

    def _journal(self, row: str) -> Path:
        return self.folder / f"{row}.json"

    def _refuse_other_data(self, row: str) -> None:
        """A choice of settings is of one log; refused before anything of the run below is made anew."""
        before = read_journal(self._journal(row), row, None).depends
        different = [part for part in SHARED if before and before.get(part) != self.shared[part]]
        if different:
            raise ArtefactError(
                f"its trials are of other {' and '.join(different)}",
                where=str(self._journal(row)),
                expected="one log, protocol, seed and encoder in one folder",
                mend="Give another --out, or remove the folder to search again.",
            )

    def _resumed(self, row: str) -> Journal:
        """The trials of a row so far; none where only what it starts from is not what it was."""
        path, depends = self._journal(row), self._depends(row)
        before = read_journal(path, row, None)
        if before.depends and list(parts_that_differ(before.depends, depends)) == ["start"]:
            kept = keep_aside(path)
            _note(f"{row}: starts from other weights than before, and is searched anew; earlier trials: {kept.name}")
        return read_journal(path, row, depends)

    def _stages(self, row: str | None = None) -> dict[str, Stage]:
        """The stages of the run that ``row`` belongs to, by manifest; what it starts from as it was chosen."""
        config = self.config if row is None else self._chosen(_starts(row))
        rows = () if row is None else (row,)
        config = config.model_copy(update={"baselines": config.baselines.model_copy(update={"rows": rows})})
        return {one.manifest: one for one in Chain(Workspace(self.run, config)).stages()}

    def _finish(self, manifests: Sequence[str], row: str | None = None) -> None:
        """Finish some stages of the run that ``row`` belongs to."""
        with locked(self.run):
            stages = [one for name, one in self._stages(row).items() if name in manifests]
            Pipeline(self.run).run(stages)

    def _depends(self, row: str) -> dict[str, Any]:
        """What the trials of a row depend on, in the words of an error."""
        starts = _starts(row)
        stages = self._stages(row) if starts else {}
        settings = Workspace(self.run, self.config).section(*REGISTRY[row].sections, "protocol", "evaluation")
        settings.pop("threads")  # which change results in the last digits alone
        return {
            **self.shared,
            "start": [_identity(stages[_manifest(name)]) for name in starts],
            "settings": settings,
            "grids": {name: list(values) for name, values in grid_of(self.config, row).fields.items()},
            "validation anchors": len(self.trials.judged),
        }

    def _chosen(self, rows: Sequence[str]) -> Config:
        """The configuration with what was chosen so far for some rows, as far as it is of what is searched now."""
        config = self.config
        for row in rows:
            if row not in REGISTRY or not self._journal(row).is_file():
                continue
            journal = read_journal(self._journal(row), row, None)
            different = parts_that_differ(journal.depends, self._depends(row))
            if not different:
                config = with_chosen(config, journal, self.budgets.get(row, len(journal.trials)))
            elif row not in self.left_out:
                self.left_out.add(row)
                _note(f"{row}: left out of what is chosen, its trials are of other {' and '.join(different)}")
        return config

    def _say(self, journal: Journal, of: int) -> None:
        """One line for the last trial, of so many."""
        if journal.not_applicable:
            _note(f"{journal.row}: not for this log: {journal.not_applicable}")
            return
        one, number = journal.trials[-1], len(journal.trials)
        head = f"[{number:>2}/{of}] {journal.row}"
        settings = ", ".join(f"{name} = {value}" for name, value in one.settings.items()) or "no settings"
        outcome = f"failed: {one.error}" if one.value is None else f"{one.value:.4f}"
        _note(f"{head}: {settings}: {outcome} ({one.seconds:.1f} s)")


def _starts(row: str) -> tuple[str, ...]:
    """The rows whose weights a row starts from, the first of them first."""
    start = REGISTRY[row].start
    if not start:
        return ()
    return (*(_starts(start) if start in REGISTRY else ()), start)


def _manifest(name: str) -> str:
    """Of the training of what a row starts from."""
    return f"models/{name}.train.json"


def _identity(stage: Stage, part: str = "") -> str:
    """One word for what a stage is made of, up to the last digits: however many threads work at it."""
    machine = {"threads", "device", "precision"} if part == "data" else {"threads"}
    settings = {name: value for name, value in stage.settings.items() if name not in machine}
    return hash_json([stage.name, __version__, settings])


def _note(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

"""The files of a run that the report reads: the essential ones checked, the optional ones where they are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrec.artefacts import read_json, read_parquet
from conrec.config import Config, load_config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import RunData, read_run_data
from conrec.logs.schema import ITEMS
from conrec.logs.titles import titles_of
from conrec.rows import CONTEXTS, in_order, rows_of

__all__ = ["RunSource"]


@dataclass(frozen=True, slots=True)
class RunSource:
    """What there is to show.

    Attributes:
        folder: the run.
        config: its configuration, and ``config_text`` the file.
        data: log, anchors and periods.
        titles: title of each catalogue item; its ID where it has none.
        metrics: ``results/metrics.json``.
    """

    folder: Path
    config: Config
    config_text: str
    data: RunData
    titles: tuple[str, ...]
    metrics: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def load(cls, folder: Path) -> RunSource:
        """Read what no report can do without.

        Raises:
            ArtefactError: the run, its configuration, its data or its metrics are missing or damaged.
        """
        if not folder.is_dir():
            raise ArtefactError("there is no run here", where=str(folder), expected="the folder of a finished run")
        path = folder / "config.toml"
        if not path.is_file():
            raise ArtefactError("this file is missing", where=str(path))
        config = load_config(file=path)
        data = read_run_data(folder)
        titles = tuple(titles_of(read_parquet(folder / "data" / "items.parquet", ITEMS)))
        where = folder / "results" / "metrics.json"
        metrics = read_json(where)
        if not _is_nested(metrics):
            raise ArtefactError("are not the metrics of a run", where=str(where), expected="{model: {metric: figure}}")
        return cls(folder, config, path.read_text(encoding="utf-8"), data, titles, metrics)

    @property
    def models(self) -> list[str]:
        """Rows of the table, in its order; left-over stages of another configuration are none."""
        return in_order(self.metrics, self.config)

    @property
    def how(self) -> str:
        """How intervals were made, for captions."""
        evaluation = self.config.evaluation
        return (
            f"95 % intervals from {evaluation.bootstraps:,} bootstrap resamples of users, seed {self.config.run.seed}"
        )

    @property
    def asked(self) -> str:
        """In which context the rows of CoNRec are asked, a sentence for captions."""
        context = self.config.prediction.context
        return f"Every row of CoNRec is asked with the same context: {CONTEXTS[context]} (“{context}”)."

    def optional(self, *parts: str) -> Any:
        """The content of a JSON file, None where it is not there.

        Raises:
            ArtefactError: it is there, but is not JSON.
        """
        path = self.folder.joinpath(*parts)
        return read_json(path) if path.is_file() else None

    def curves(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """``models/NAME/curve.json`` of each row that has one: {model: {series: points}}, empty series left out."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for name in rows_of(self.config):
            path = self.folder / "models" / name / "curve.json"
            if not path.is_file():
                continue
            content = read_json(path)
            try:
                series = {
                    str(key): [(float(step), float(value)) for step, value in points]
                    for key, points in dict(content).items()
                    if points
                }
            except (TypeError, ValueError) as error:
                raise ArtefactError(
                    f"cannot be read as curves ({error})", where=str(path), expected="{name: [[step, value], …]}"
                ) from None
            if series:
                found[name] = series
        return found

    def filters(self) -> dict[str, Mapping[str, Any]]:
        """``filter/NAME.json`` of each row of ``filter.models`` that has one."""
        found = {
            name: self.optional("filter", f"{name}.json") for name in in_order(self.config.filter.models, self.config)
        }
        return {name: one for name, one in found.items() if isinstance(one, dict) and "threshold" in one}

    def notes(self, model: str) -> Mapping[str, Any]:
        """``models/NAME/notes.json``, empty where there is none."""
        found = self.optional("models", model, "notes.json")
        return found if isinstance(found, dict) else {}


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(row, dict) and all(isinstance(one, dict) for one in row.values()) for row in value.values()
    )

"""The files of a run that the report reads: the essential ones checked, the optional ones where they are there."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conrec.artefacts import read_json, read_parquet
from conrec.config import Config, load_config
from conrec.errors import ArtefactError
from conrec.evaluation.evaluate import MODELS, RunData, read_run_data
from conrec.logs.schema import ITEMS

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
        items = read_parquet(folder / "data" / "items.parquet", ITEMS)
        pairs = zip(items["title"].to_pylist(), items["item_id"].to_pylist(), strict=True)
        titles = tuple((title or "").strip() or item_id for title, item_id in pairs)
        where = folder / "results" / "metrics.json"
        metrics = read_json(where)
        if not _is_nested(metrics):
            raise ArtefactError("are not the metrics of a run", where=str(where), expected="{model: {metric: figure}}")
        return cls(folder, config, path.read_text(encoding="utf-8"), data, titles, metrics)

    @property
    def models(self) -> list[str]:
        """Rows of the table, in its order."""
        return [one for one in MODELS if one in self.metrics] + [one for one in self.metrics if one not in MODELS]

    @property
    def how(self) -> str:
        """How intervals were made, for captions."""
        evaluation = self.config.evaluation
        return (
            f"95 % intervals from {evaluation.bootstraps:,} bootstrap resamples of users, seed {self.config.run.seed}"
        )

    def optional(self, *parts: str) -> Any:
        """The content of a JSON file, None where it is not there.

        Raises:
            ArtefactError: it is there, but is not JSON.
        """
        path = self.folder.joinpath(*parts)
        return read_json(path) if path.is_file() else None

    def curves(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        """``models/NAME/curve.json`` of each model that has one: {model: {series: points}}, empty series left out."""
        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        paths = sorted(self.folder.glob("models/*/curve.json"), key=lambda path: _place(path.parent.name))
        for path in paths:
            content = read_json(path)
            try:
                series = {
                    str(name): [(float(step), float(value)) for step, value in points]
                    for name, points in dict(content).items()
                    if points
                }
            except (TypeError, ValueError) as error:
                raise ArtefactError(
                    f"cannot be read as curves ({error})", where=str(path), expected="{name: [[step, value], …]}"
                ) from None
            if series:
                found[path.parent.name] = series
        return found

    def filters(self) -> dict[str, Mapping[str, Any]]:
        """``filter/NAME.json`` of each model that has one."""
        paths = sorted(self.folder.glob("filter/*.json"), key=lambda path: _place(path.stem))
        # Manifests lie beside them; hidden files are another process's unfinished ones.
        found = {
            path.stem: read_json(path)
            for path in paths
            if path.name[0] != "." and path.suffixes[-2:-1] != [".manifest"]
        }
        return {name: one for name, one in found.items() if isinstance(one, dict) and "threshold" in one}

    def settings(self) -> Mapping[str, Any]:
        """The configuration as nested tables."""
        return tomllib.loads(self.config_text)


def _place(name: str) -> tuple[int, str]:
    """Sorts models in the order of the table, others behind."""
    return (MODELS.index(name) if name in MODELS else len(MODELS), name)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(row, dict) and all(isinstance(one, dict) for one in row.values()) for row in value.values()
    )

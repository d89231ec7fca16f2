"""Whether a run holds a row's answers: finished, and of the settings that its configuration has now.

A run whose settings changed and that was stopped before a row was trained again still holds the files of before.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path

from conrec.artefacts import read_json
from conrec.baselines.registry import counted
from conrec.comparing.seeds import flat
from conrec.config import Config
from conrec.errors import ArtefactError
from conrec.settings.base import Settings

__all__ = ["has_answers"]


def has_answers(folder: Path, config: Config, row: str) -> bool:
    """Whether both answer files of a row are there, and its finished stages fit the configuration of the run.

    Args:
        folder: of the run.
        config: of the run.
        row: any row of the table.
    """
    answers = [folder / kind / f"{row}.parquet" for kind in ("predictions", "candidate_scores")]
    manifests = [folder / "predictions" / f"{row}.manifest.json"]
    if not counted(row):
        manifests.append(folder / "models" / f"{row}.train.json")
    return all(path.is_file() for path in answers) and all(_fits(path, config) for path in manifests)


def _fits(manifest: Path, config: Config) -> bool:
    """Whether a stage is finished, and every setting that it wrote down and that there still is has the same value."""
    try:
        settings = read_json(manifest)["settings"]
    except (ArtefactError, KeyError, TypeError):
        return False
    if not isinstance(settings, Mapping) or settings.get("seed", config.run.seed) != config.run.seed:
        return False
    for name, values in settings.items():
        try:
            section = attrgetter(name)(config)
        except AttributeError:  # no section: threads, hashes of files
            continue
        if isinstance(section, Settings) and isinstance(values, Mapping):
            now = dict(flat(section.model_dump(mode="json")))
            if any(key in now and now[key] != value for key, value in flat(values)):
                return False
    return True

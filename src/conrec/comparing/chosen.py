"""What a search chose, as a configuration that `conrec baselines run` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from conrec.artefacts import write_text
from conrec.comparing.grids import with_settings
from conrec.comparing.journal import Journal
from conrec.comparing.origin import section_of
from conrec.config import Config
from conrec.settings.base import NONE, as_toml
from conrec.settings.search import ChosenConfig

__all__ = ["CHOSEN", "with_chosen", "write_chosen"]

CHOSEN = "chosen.toml"


def with_chosen(config: Config, journal: Journal, budget: int) -> Config:
    """The configuration with the best settings of a row, and a record of where they come from.

    Args:
        config: that was searched with.
        journal: of the row; one without a judged trial changes nothing.
        budget: how many of its trials count.
    """
    best = journal.best(budget)
    if best is None or best.value is None or not best.settings:
        return config
    trials = min(budget, len(journal.trials))
    settings = {name: NONE if one is None else one for name, one in best.settings.items()}
    record = ChosenConfig(data=config.data.source, trials=trials, value=round(best.value, 6), settings=settings)
    search = config.search.model_copy(update={"chosen": {**config.search.chosen, journal.row: record}})
    return with_settings(config, section_of(journal.row), best.settings).model_copy(update={"search": search})


def write_chosen(folder: Path, config: Config) -> Path:
    """Write what differs from the defaults as ``FOLDER/chosen.toml``; its path.

    Rows, threads and CoNRec itself are left out: they say what is run, not how.
    """
    values = _differing(as_toml(config), as_toml(Config()))
    for row in config.search.chosen:  # in full, where the best are the defaults as well
        inner = values
        for part in section_of(row).split("."):
            inner = inner.setdefault(part, {})
        settings = config.search.chosen[row].settings
        inner.update({name: one for name, one in settings.items() if one != NONE})
    values.get("baselines", {}).pop("rows", None)
    for key in ("threads", "conrec"):
        values.get("run", {}).pop(key, None)
    values = {name: section for name, section in values.items() if section != {}}
    path = folder / CHOSEN
    head = f"# Chosen by validation FHR@{config.evaluation.top_k}: conrec baselines search\n\n"
    write_text(path, head + tomli_w.dumps(values))
    return path


def _differing(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are not those of ``usual``, section by section; None cannot be written and is left out."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(usual.get(key), Mapping):
            inner = _differing(value, usual[key])
            if inner:
                result[key] = inner
        elif value is not None and value != usual.get(key):
            result[key] = value
    return result

"""Settings of the search over baselines' settings, and where searched settings came from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from conrec.settings.base import Positive, Settings

__all__ = ["ChosenConfig", "SearchConfig"]


class ChosenConfig(Settings):
    """One row's settings as a search chose them; `conrec baselines search` writes it."""

    data: str
    """Source of the log that was searched on."""
    trials: Positive
    """Settings that were tried."""
    value: float = Field(ge=0, le=1)
    """FHR@K of the chosen ones on the validation anchors; candidate accuracy of a row that ranks nothing."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Fields of the row's section, as chosen. A record: what a run trains with stands in the section itself."""


class SearchConfig(Settings):
    """`conrec baselines search`: the same number of trials for every row, judged on validation anchors alone."""

    trials: Positive = 12
    """Settings that are tried for a row, the configured ones first; a grid that has fewer is tried whole."""
    anchors: Positive = 2000
    """Validation anchors on which a trial is judged, a seeded sample where there are more."""
    chosen: dict[str, ChosenConfig] = Field(default_factory=dict)
    """Rows whose settings in this file come from a search."""

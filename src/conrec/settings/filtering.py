"""Settings of the filter: whose predict sets are stored, what error is allowed, and what is done with a candidate."""

from __future__ import annotations

from conrec.settings.base import Settings, Share

__all__ = ["FilterConfig"]


class FilterConfig(Settings):
    """The offline filter."""

    models: tuple[str, ...] = ("most-disliked", "sasrec", "lc-rec-negatives", "conrec")
    """Rows whose predict sets are stored for every user."""
    false_filter_rate: Share = 0.05
    """Bound on the share of liked candidates that are dropped, on validation data; it sets the threshold."""

"""What semantic IDs are worth: use of the codes, collisions, what they keep and mean, how stable they are."""

from __future__ import annotations

from typing import Any

from conrec.items.diagnosis.diagnose import STABILITY, quantiser_hash
from conrec.items.diagnosis.figures import Listing, diagnostics_listings, stability_listings
from conrec.report.content import Block, Cell, Note, Section, Table, absent
from conrec.report.plots import rank_frequency
from conrec.report.source import RunSource

__all__ = ["codebooks"]


def codebooks(source: RunSource) -> Section:
    """The figures of ``items/diagnostics.json``, and of ``items/stability.json`` where it was asked for."""
    title = "Semantic IDs"
    lead = (
        "Every later stage sees an item through its codes alone: how evenly they are used, how much of the embedding "
        "they keep, whether a prefix means something, and what moves them."
    )
    found = source.optional("items", "diagnostics.json")
    if not isinstance(found, dict):
        note = absent("The diagnostics of the codes", "items/diagnostics.json")
        return Section("codebooks", title, lead, (note,))
    try:
        listings = diagnostics_listings(found)
        counts = {f"level {one['level']}": one["counts"] for one in found["levels"]}
    except (KeyError, TypeError):
        old = "items/diagnostics.json was written by an earlier version: the command of the run writes it anew."
        return Section("codebooks", title, lead, (Note(old, "quiet"),))
    use, *others = map(_table, listings)
    alt = "Items of each code, one panel a level, the most used code first; the table above has the sums."
    plot = rank_frequency(counts, alt, "How many items have each code. The dashed line is even use.")
    return Section("codebooks", title, lead, (use, plot, *others, *_stability(source)))


def _stability(source: RunSource) -> tuple[Block, ...]:
    found: Any = source.optional("items", STABILITY)
    command = "conrec items diagnose RUN --stability"
    if not isinstance(found, dict):
        return (Note(f"How stable the codes are was not asked: “{command}” says it, and writes it here.", "quiet"),)
    if found.get("quantiser") != quantiser_hash(source.folder / "items"):
        text = f"items/{STABILITY} is of other codebooks than this run has now: “{command}” computes it anew."
        return (Note(text, "quiet"),)
    try:
        return tuple(map(_table, stability_listings(found)))
    except (KeyError, TypeError):
        return (Note(f"items/{STABILITY} was written by an earlier version: “{command}” computes it anew.", "quiet"),)


def _table(listing: Listing) -> Table:
    rows = tuple(tuple(map(Cell, row)) for row in listing.rows)
    return Table(f"{listing.title}. {listing.note}".rstrip(), listing.columns, rows, listing.words)

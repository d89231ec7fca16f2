"""A sample of users: fewer of them, each with his whole history."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from conrec.logs.counts import Counts, FileCounts, RuleCounts
from conrec.logs.sources.base import Loaded
from conrec.seeds import derive

__all__ = ["sample_users"]


def sample_users(loaded: Loaded, users: int, seed: int) -> Loaded:
    """The log of some users, and the items that they touched.

    Each user's lot is drawn from the seed and his ID alone, and the lowest lots stay: neither the order of the file nor
    the other users change it, and a sample of 2,000 holds that of 1,000.

    Args:
        loaded: a clean log.
        users: how many stay; at least that many: nothing is left out.
        seed: of the draw.

    Returns:
        The smaller log. What is left out is counted among the refused rows of either file, as "user not in the sample"
        and "item of no user in the sample"; where the file was cleaned by rules, the sample is the last of them. Notes,
        and what earlier rules changed, are counts of the whole file.
    """
    ids = loaded.events["user_id"].unique().to_pylist()
    if len(ids) <= users:
        return loaded
    chosen = pa.array(sorted(ids, key=lambda one: (derive(seed, "sample of users", one), one))[:users], pa.string())
    stays = pc.is_in(loaded.events["user_id"], value_set=chosen)
    events = loaded.events.filter(stays)
    touched = pc.is_in(loaded.items["item_id"], value_set=events["item_id"].combine_chunks())
    items = loaded.items.filter(touched)
    first_user = loaded.events.filter(pc.invert(stays))["user_id"][0].as_py()
    untouched = loaded.items.filter(pc.invert(touched))["item_id"]
    first_item = untouched[0].as_py() if len(untouched) else ""
    counts = Counts(
        _less(loaded.counts.events, events.num_rows, "user not in the sample", f"user {first_user!r}"),
        _less(loaded.counts.items, items.num_rows, "item of no user in the sample", f"item {first_item!r}"),
    )
    return replace(loaded, events=events, items=items, counts=counts)


def _less(counts: FileCounts, kept: int, reason: str, example: str) -> FileCounts:
    """The counts of a file of which fewer rows are kept for one reason more."""
    if kept == counts.kept:
        return counts
    rule = RuleCounts("sample of users", kept, 0, counts.kept - kept)
    return replace(
        counts,
        kept=kept,
        rules=(*counts.rules, rule) if counts.rules else (),
        refused={**counts.refused, reason: counts.kept - kept},
        examples={**counts.examples, reason: example},
    )

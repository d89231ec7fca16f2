"""The filter from plain Python: load it, filter one user's candidates, ask why, and try it without dropping anything.

    python examples/filter_in_python.py runs/ml-100k --model conrec --user 42

`pip install conrec` is enough: no language model is loaded. Without --user it takes the first user of the store, and
without --items what lies around his predict set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from conrec.filtering.filter import NegativeFilter


def main(arguments: list[str] | None = None) -> None:
    """Print what the filter does with some candidates of a user."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--model", default="conrec", help="one of the run's filter.models")
    parser.add_argument("--user", help="a user ID")
    parser.add_argument("--items", nargs="*", help="item IDs of candidates")
    given = parser.parse_args(arguments)

    # Once, at the start of a service: the store is checked and mapped, the item table too.
    negative_filter = NegativeFilter.load(given.run, given.model)
    user = given.user or next(iter(negative_filter.store.user_ids()))
    candidates = given.items or some_candidates(negative_filter, user)

    # A request: which candidates stay, and of each one why.
    done = negative_filter.filter(user, candidates)
    print(f"user {user!r}: {len(done.kept)} of {len(candidates)} candidates stay")
    for one in done.dropped:
        print(f"  dropped {one.item_id!r}: similarity {one.similarity:.4f} to {one.nearest_sid} ({one.nearest_item!r})")

    # A million decisions a second: arrays in, arrays out, no object for a candidate.
    decisions = negative_filter.judge(user, candidates)
    print(f"judged {len(decisions)} at once, {int(decisions.dropped.sum())} dropped")

    # Shadow mode: the reasons are there, and nothing is dropped.
    shadow = negative_filter.judge(user, candidates, dry_run=True)
    print(f"dry run: {int(shadow.dropped.sum())} dropped")

    # What this request must show (paid for, or asked for by name) is never dropped.
    asked = [one.item_id for one in done.dropped][:1]
    allowed = negative_filter.judge(user, candidates, allow=asked)
    print(f"with {asked} allowed: {int(allowed.dropped.sum())} dropped")

    # Another threshold than the calibrated one; 1 keeps everything, for no cosine is above it.
    print(f"threshold 1: {int(negative_filter.judge(user, candidates, threshold=1.0).dropped.sum())} dropped")

    # A user whom the store does not know loses nothing.
    stranger = negative_filter.filter("nobody by this name", candidates)
    print(f"an unknown user keeps {len(stranger.kept)} of {len(candidates)}: {stranger.kept[0].reason}")


def some_candidates(negative_filter: NegativeFilter, user: str, count: int = 200) -> list[str]:
    """The items of a user's predict set, and others of the catalogue to fill them up."""
    stored = negative_filter.store.get(user)
    predicted = [] if stored is None else negative_filter.catalogue.items_of(stored.codes).tolist()
    items = dict.fromkeys(item for item in [*predicted, *range(count)] if 0 <= item < len(negative_filter.catalogue))
    return [negative_filter.catalogue.item_ids[item] for item in items][:count]


if __name__ == "__main__":
    main()

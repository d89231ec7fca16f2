"""Whether a method tells items apart for one and the same user, and not only users who dislike much from others.

At one threshold for everybody, a rule that looks at the user alone can catch many dislikes: it silences those who
dislike most of what they rate. Within one anchor it is worth nothing, as all of its items have the same score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64

from conrec.arrays import Array
from conrec.filtering.analysis.pairs import NEGATIVES, POSITIVES, Pairs

__all__ = ["within_anchors"]


def within_anchors(scores: Sequence[Float32[Array, " pairs"]], pairs: Pairs) -> Float64[Array, "anchors methods"]:
    """The share of an anchor's (disliked, liked) pairs of items in which the disliked one has the higher score.

    Equal scores count half: 0.5 is chance (Fawcett 2006: the area under the ROC curve of that anchor).

    Args:
        scores: of each method.
        pairs: that they are of.

    Returns:
        NaN where an anchor has no future positive or no future negative.
    """
    table = np.stack(scores, axis=1) if scores else np.empty((len(pairs), 0), dtype=np.float32)
    found = np.full((pairs.anchors, table.shape[1]), np.nan)
    liked, disliked = (_of_anchors(pairs, kind) for kind in (POSITIVES, NEGATIVES))
    for anchor, (up, down) in enumerate(zip(liked, disliked, strict=True)):
        if len(up) and len(down):
            one, other = table[down][:, None, :], table[up][None, :, :]
            found[anchor] = ((one > other) + 0.5 * (one == other)).mean(axis=(0, 1))
    return found


def _of_anchors(pairs: Pairs, kind: int) -> list[Array]:
    """Rows of the pairs of a kind, by anchor."""
    rows = np.flatnonzero(pairs.of_kind(kind))
    rows = rows[np.argsort(pairs.anchor[rows], kind="stable")]
    counts = np.bincount(pairs.anchor[rows], minlength=pairs.anchors)
    return np.split(rows, np.cumsum(counts)[:-1]) if pairs.anchors else []

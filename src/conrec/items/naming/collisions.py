"""From raw codes to semantic IDs: the three ways to tell apart items whose codes collide. NumPy only.

``nearest`` moves all but one of them to the nearest free codes, ``extra_level`` counts them in a fourth code (TIGER,
arXiv 2305.05065, section 3.1), ``shared`` leaves them what they have. Training items come first in all three, so that
no name of theirs depends on items that came later.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from conrec.arrays import Array
from conrec.config import SemanticIdsConfig
from conrec.errors import DataError
from conrec.items.naming.nearest_place import Space, place
from conrec.items.semantic_ids import LEVELS, SemanticIds, sid_keys

__all__ = ["most_of_a_first_code", "name_items", "name_more", "resolve_nearest", "without_room"]


def name_items(
    codes: Int[Array, "items 3"],
    latents: Float[Array, "items latent"],
    codebooks: Float[Array, "3 codebook latent"],
    train_items: Bool[Array, " items"],
    config: SemanticIdsConfig,
) -> SemanticIds:
    """The semantic IDs of a catalogue, resolved as ``config.collisions`` says.

    ``nearest``: see `resolve_nearest`. ``extra_level``: a fourth code counts the items of each raw triple from 0:
    training items first, then the others; among each the nearest to its last codeword first, then by item. There are
    as many fourth codes as the largest group has items. ``shared``: the raw codes.

    Args:
        codes: raw codes.
        latents: what was quantised: the encoder's output for each item.
        codebooks: codewords of each level.
        train_items: items with an event in the training period.
        config: which way, and the cap of ``nearest``.

    Raises:
        DataError: with ``nearest``, more items share a first code than the two levels below it can name.
    """
    raw, size = codes.astype(np.int32), codebooks.shape[1]
    if config.collisions == "shared":
        return SemanticIds(raw, raw.copy(), size, "shared")
    if config.collisions == "extra_level":
        fourth = _counted(raw, Space(latents, codebooks), ~train_items)
        return SemanticIds(raw, np.column_stack([raw, fourth]), size, "extra_level", int(fourth.max(initial=0)) + 1)
    return SemanticIds(raw, resolve_nearest(raw, latents, codebooks, train_items, config.cap), size)


def name_more(
    ids: SemanticIds,
    codes: Int[Array, "more 3"],
    latents: Float[Array, "more latent"],
    codebooks: Float[Array, "3 codebook latent"],
    cap: int | None = None,
) -> SemanticIds:
    """The table with further items behind those that it has, none of which moves; they are named as later items are.

    Args:
        ids: the table as it is.
        codes, latents: of the further items.
        codebooks: of the table.
        cap: of ``nearest``.

    Returns:
        The larger table. A fourth level has more codes than before where a group grew beyond the largest; models that
        were trained before have no token for those, see `without_room`.

    Raises:
        DataError: with ``nearest``, more items share a first code than can be named.
    """
    raw, size = codes.astype(np.int32), ids.codebook_size
    every = np.concatenate([ids.codes, raw])
    extra = ids.extra_size
    if ids.shared:
        resolved = raw.copy()
    elif ids.collisions == "extra_level":
        fourth = _counted(raw, Space(latents, codebooks), np.zeros(len(raw), dtype=np.bool_)) + _there(ids, raw)
        resolved = np.column_stack([raw, fourth]).astype(np.int32)
        extra = max(ids.extra_size or 1, int(fourth.max(initial=0)) + 1)
    else:
        _check_room(every, size)
        moving = raw.astype(np.int64)
        taken = np.sort(sid_keys(ids.resolved, ids.sizes))
        place(Space(latents, codebooks), moving, np.arange(len(raw)), taken, cap)
        resolved = moving.astype(np.int32)
    return SemanticIds(every, np.concatenate([ids.resolved, resolved]), size, ids.collisions, extra)


def without_room(ids: SemanticIds, codes: Int[Array, "more 3"]) -> Bool[Array, " more"]:
    """Which further items `name_more` could not name within the codes of the table, each counted after those before it.

    With ``nearest``, those whose first code has no name left; with ``extra_level``, those whose group has as many items
    as there are fourth codes; with ``shared``, none.
    """
    if ids.shared:
        return np.zeros(len(codes), dtype=np.bool_)
    if ids.collisions == "extra_level":
        keys, there, room = sid_keys(codes, ids.sizes[:LEVELS]), _there(ids, codes), ids.extra_size or 1
    else:
        keys, room = codes[:, 0].astype(np.int64), ids.codebook_size**2
        there = np.bincount(ids.codes[:, 0], minlength=ids.codebook_size)[keys]
    full: Array = there + _ranks(keys, np.argsort(keys, kind="stable")) >= room
    return full


def resolve_nearest(
    codes: Int[Array, "items 3"],
    latents: Float[Array, "items latent"],
    codebooks: Float[Array, "3 codebook latent"],
    train_items: Bool[Array, " items"],
    cap: int | None = None,
) -> Int32[Array, "items 3"]:
    """Give every item a semantic ID of its own, as near to its raw codes as there is room.

    The items of the training period come first, among themselves; the others share what is then free. So the
    names that models are trained on do not depend on items that came later. Within each of the two groups:

    Of the items that share all three codes the one nearest to its last codeword keeps them. The others, nearest
    first, take the nearest free last code under the same first two. Where more items share the first two codes
    than there are last codes left, those of "the others" that are farthest take the nearest second code with room
    and, after all items that were there before, the nearest free last code under it. "Near" is the squared
    distance of the item's residual at that level to the codeword; ties go to the lower item and code.

    With a cap, a free last code counts only where it is one of the ``cap`` nearest to the item's residual. The others
    that find none under their first two codes go on after all who did, nearest to their raw codeword first: each takes
    the nearest second code under which one of its ``cap`` nearest last codes is free, and of those the nearest; where
    no second code offers one, the nearest free last code under the nearest second code that has any. A cap of all
    codes is none.

    Args:
        codes: raw codes.
        latents: what was quantised: the encoder's output for each item.
        codebooks: codewords of each level.
        train_items: items with an event in the training period.
        cap: how many last codes an item may choose from; None: all.

    Raises:
        DataError: more items share a first code than the two levels below it can name.
    """
    size = codebooks.shape[1]
    _check_room(codes, size)
    resolved = codes.astype(np.int64)
    space = Space(latents, codebooks)
    taken = np.empty(0, dtype=np.int64)
    for group in (train_items, ~train_items):
        items = np.flatnonzero(group)
        place(space, resolved, items, taken, cap)
        taken = np.union1d(taken, sid_keys(resolved[items], (size,) * LEVELS))
    return resolved.astype(np.int32)


def most_of_a_first_code(codes: Int[Array, "items 3"]) -> int:
    """Items of the fullest first code; the two levels below can name the square of the codebook size."""
    return int(np.bincount(codes[:, 0]).max(initial=0))


def _check_room(codes: Array, size: int) -> None:
    if (most := most_of_a_first_code(codes)) > size * size:
        raise DataError(
            f"{most} items share the first code {int(np.bincount(codes[:, 0]).argmax())}",
            where="semantic IDs",
            expected=f"at most {size} × {size} = {size * size}, as many as two levels of {size} codes can name",
            mend="Raise rqvae.codebook_size, which may be as large as the number of items of the training period.",
        )


def _counted(codes: Array, space: Space, late: Array) -> Int32[Array, " items"]:
    """Number of each item within its raw triple: those not ``late`` first, the nearest to its last codeword first."""
    keys = sid_keys(codes, (space.size,) * LEVELS)
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[group] > 1)
    distance = np.zeros(len(codes))
    distance[several] = space.distances(several, codes)
    return _ranks(keys, np.lexsort((np.arange(len(codes)), distance, late, keys))).astype(np.int32)


def _there(ids: SemanticIds, codes: Array) -> Array:
    """How many items of the table have each of some raw triples."""
    known, counts = np.unique(sid_keys(ids.codes, ids.sizes[:LEVELS]), return_counts=True)
    if not len(known):
        return np.zeros(len(codes), dtype=np.int64)
    keys = sid_keys(codes, ids.sizes[:LEVELS])
    at = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[at] == keys, counts[at], 0)


def _ranks(keys: Array, order: Array) -> Array:
    """Place of each row among the rows of its key, counted from 0 along ``order``, which sorts the keys."""
    ordered = keys[order]
    begins = np.searchsorted(ordered, ordered)
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[order] = np.arange(len(keys)) - begins
    return ranks

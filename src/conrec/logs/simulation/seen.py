"""What a user must not be shown again, in sixteen bits an exposure.

One bit for each (user, item), at a place that is hashed into the bits of the user. An item that was added is always
found again. Of the others up to one in sixteen is found as well, and is then never shown to this user, as if the
platform did not have it for him.
"""

from __future__ import annotations

import numpy as np

from conrec.arrays import Array

__all__ = ["Seen"]

BYTES = 2
"""Of each exposure that a user will get."""
_ITEM, _USER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


class Seen:
    """Sets of items, one a user.

    Args:
        exposures: int64 [users], the most items that will be added for each.
    """

    def __init__(self, exposures: Array) -> None:
        self.size = BYTES * exposures.astype(np.int64)
        self.first = np.cumsum(self.size) - self.size
        self.bits = np.zeros(int(self.size.sum()), dtype=np.uint8)

    def add(self, users: Array, items: Array) -> None:
        """Add an item for each user, int [n] both."""
        byte, bit = self._place(users, items)
        np.bitwise_or.at(self.bits, byte, np.left_shift(np.uint8(1), bit))

    def holds(self, users: Array, items: Array) -> Array:
        """Whether each item was added for its user, bool [n]; see the module for how it errs."""
        byte, bit = self._place(users, items)
        return np.asarray((self.bits[byte] >> bit) & 1 == 1)

    def _place(self, users: Array, items: Array) -> tuple[Array, Array]:
        mixed = (items.astype(np.uint64) + np.uint64(1)) * _ITEM ^ (users.astype(np.uint64) + np.uint64(1)) * _USER
        mixed ^= mixed >> np.uint64(29)
        mixed *= _ITEM
        high = (mixed >> np.uint64(32)).astype(np.int64)
        byte = self.first[users] + ((high >> 3) * self.size[users] >> 29)
        return byte, (high & 7).astype(np.uint8)

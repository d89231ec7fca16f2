"""What an encoder-decoder reads and writes: a token for every code of every level, for users, and for prompt words."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from conrec.arrays import Array

__all__ = ["END", "PAD", "Tokens", "hashed"]

PAD = 0
"""Token of padding, and of the start of what the decoder writes, as in T5."""
END = 1
"""Token behind what the encoder reads, as in T5; through it the model knows which event is the latest."""


@dataclass(frozen=True)
class Tokens:
    """The vocabulary: padding, the end, words of the prompt, users, then the codes of each level.

    Attributes:
        codes: int32 [items, levels], the ID of each item.
        sizes: codes of each level.
        user_tokens: how many tokens there are for users; 0: none, and users are not told apart.
        words: how many words the prompt has, a token each; they stand before the user and his history.
    """

    codes: Array
    sizes: tuple[int, ...]
    user_tokens: int
    words: int = 0

    @property
    def levels(self) -> int:
        """Codes of an ID."""
        return len(self.sizes)

    @property
    def code_offset(self) -> tuple[int, ...]:
        """Token of code 0 of each level."""
        first = 2 + self.words + self.user_tokens
        return tuple(first + sum(self.sizes[:level]) for level in range(self.levels))

    @property
    def size(self) -> int:
        """Of the vocabulary."""
        return 2 + self.words + self.user_tokens + sum(self.sizes)

    @property
    def before(self) -> int:
        """Tokens before the history."""
        return self.words + (self.user_tokens > 0)

    def of_items(self, items: Int[Array, " n"]) -> Int[Array, "n levels"]:
        """Tokens of the codes of some items."""
        found: Array = self.codes[items].astype(np.int64) + np.asarray(self.code_offset)
        return found

    def of_items_on(self, items: Int64[Tensor, "*n"], codes: Int[Tensor, "items levels"]) -> Int64[Tensor, "*n levels"]:
        """The same on a device, from the codes there."""
        return codes[items].long() + torch.tensor(self.code_offset, device=codes.device)

    def of_history(self, user_id: str, items: Int[Array, " n"]) -> list[int]:
        """What the encoder reads before the end: the words, the user and the items, `levels` tokens each."""
        opening = list(range(2, 2 + self.words))
        if self.user_tokens:
            opening.append(2 + self.words + hashed(user_id, self.user_tokens))
        return [*opening, *self.of_items(items).ravel().tolist()]


def hashed(user_id: str, buckets: int) -> int:
    """A number below ``buckets`` from the user's ID alone (the hashing trick, Weinberger et al., ICML 2009)."""
    return int.from_bytes(hashlib.blake2b(user_id.encode(), digest_size=8).digest(), "little") % buckets

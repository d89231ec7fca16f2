"""Items from an encoder-decoder: the exact search of the language model's rows, and log-probabilities of candidates.

The history is read once. What follows are batched steps of the decoder: all prefixes of one length that the search
wants to see, of all users of a batch, in one pass; an ID is so short that a prefix is read again rather than kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.baselines.generative.encoder_decoder import EncoderDecoder, Memory
from conrec.baselines.generative.tokens import Tokens
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.items.trie_nodes import Children
from conrec.llm.policy import next_codes

__all__ = ["CodeLogits", "DecoderTree", "log_probabilities", "popularity"]


@dataclass(frozen=True, slots=True)
class CodeLogits:
    """The head of an encoder-decoder, a `conrec.llm.policy.CodeHead`.

    Attributes:
        network: its embedding is the head.
        tokens: where the codes of each level lie in it.
    """

    network: EncoderDecoder
    tokens: Tokens

    @property
    def model(self) -> Any:
        """The T5."""
        return self.network.t5

    @property
    def code_offset(self) -> tuple[int, ...]:
        """Token of code 0 of each level."""
        return self.tokens.code_offset

    def logits(self, hidden: Float[Tensor, "*n d"], level: int, children: Children) -> Float[Tensor, "*n w"]:
        """Logits of the codes of one level that may follow each hidden state; any in unused places."""
        first = self.code_offset[level]
        weight: Tensor = self.network.t5.lm_head.weight
        logits = F.linear(hidden, weight[first : first + self.tokens.sizes[level]]).gather(-1, children.code)
        if len(self.network.bias):
            logits = logits + F.embedding(children.state.clamp(min=0), self.network.bias[level][:, None])[..., 0]
        return logits


class DecoderTree:
    """Prefixes behind each history, a `conrec.llm.tree.PrefixTree`; those of one layer are equally long.

    Args:
        network: in evaluation mode.
        memory: of B histories.

    Attributes:
        root: hidden state of the start, float [B, d].
    """

    def __init__(self, network: EncoderDecoder, memory: Memory) -> None:
        self._network, self._memory = network, memory
        none = torch.zeros(len(memory.visible), 1, 0, dtype=torch.int64, device=network.device)
        self.root: Tensor = network.decode(memory, none)[:, 0, -1]
        self._path = none[:, :0]  # tokens of the kept prefixes, [B, kept, longest], shorter ones filled up behind
        self._length: list[int] = []  # tokens of each

    def extend(self, *layers: tuple[Tensor, Tensor], keep: bool = True) -> Float[Tensor, "B n d"]:
        """Read further prefixes.

        Args:
            layers: pairs of int64 [B, n_i]: the token of each, and the number of the prefix that it lengthens among
                all those kept so far and the layers before it, -1 for none; in one layer all are equally long.
            keep: whether later ones may lengthen these.

        Returns:
            Hidden state of each, layer by layer.
        """
        path, length = self._path, list(self._length)
        found = []
        for tokens, parent in layers:
            last = int(parent.max())
            longer = 0 if last < 0 else length[last]
            place = parent.clamp(min=0)[..., None].expand(-1, -1, longer)
            above = path[..., :longer].gather(1, place) if longer else parent.new_zeros(*parent.shape, 0)
            new = torch.cat([above, tokens[..., None]], dim=-1)
            path = torch.cat(
                [
                    F.pad(path, (0, max(0, longer + 1 - path.shape[2]))),
                    F.pad(new, (0, max(0, path.shape[2] - longer - 1))),
                ],
                dim=1,
            )
            length += [longer + 1] * tokens.shape[1]
            found.append(self._network.decode(self._memory, new)[:, :, -1])
        if keep:
            self._path, self._length = path, length
        return torch.cat(found, dim=1)

    def select(self, rows: Int64[Tensor, " n"]) -> None:
        """Go on with some of the rows only, in the given order."""
        self._memory = self._memory.select(rows)
        self.root, self._path = self.root[rows], self._path[rows]


def log_probabilities(
    head: CodeLogits, trie: EligibleTrie, hidden: Float[Tensor, "B C levels d"], items: Int64[Tensor, "B C"]
) -> Float[Tensor, "B C levels"]:
    """Log-probability of each code of given items over those that the trie allows there, by teacher forcing.

    Args:
        head: of the network.
        trie: what is allowed for each of B rows.
        hidden: what the decoder made of the start and of each code of the items but the last, `EncoderDecoder.decode`.
        items: of the catalogue, all of them allowed.
    """
    codes = trie.trie.codes[items].long()
    state = torch.zeros_like(items)
    logs = []
    for level in range(trie.trie.levels):
        following = next_codes(head, hidden[:, :, level], trie, state, level)
        place = ((following.code == codes[..., level, None]) & (following.state >= 0)).int().argmax(-1, keepdim=True)
        logs.append(following.log_probability.gather(-1, place)[..., 0])
        state = following.state.gather(-1, place)[..., 0]
    return torch.stack(logs, dim=-1)


def popularity(trie: Trie, counts: Float[Tensor, " items"]) -> tuple[Tensor, ...]:
    """For each level the logarithm of what is counted below every state, one added to each item.

    As logits, over the codes that the trie allows, they are the distribution of the counts over the catalogue.
    """
    path, ones = trie.path(), counts + 1
    sums = [counts.new_zeros(trie.n_nodes(level)).index_add_(0, path[:, level], ones) for level in range(trie.levels)]
    # Of items that share an ID all but the first are no states.
    return tuple(one.clamp(min=1).log() for one in sums)

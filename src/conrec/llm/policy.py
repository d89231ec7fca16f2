"""The policy: log-probabilities of the next code over those that the trie allows, on the token tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.errors import ConrecError, DataError
from conrec.items.eligible import EligibleTrie
from conrec.items.trie_nodes import Children
from conrec.llm.backbone import Backbone
from conrec.llm.tree import Padding, TokenTree

__all__ = ["CodeHead", "NextCodes", "Normalise", "distinct", "log_probabilities", "next_codes", "read"]

Normalise = Literal["allowed", "vocabulary"]
"""Over what probabilities sum to 1: the codes that the trie allows, or the model's whole vocabulary."""

CELLS = 1 << 24
"""Logits of the whole vocabulary that are held at a time."""


@runtime_checkable
class CodeHead(Protocol):
    """From hidden states to logits of codes; a `Backbone` is one."""

    @property
    def model(self) -> Any:
        """Of `transformers`; its output embeddings are asked for the whole vocabulary."""

    @property
    def code_offset(self) -> tuple[int, ...]:
        """Token id of code 0 of each level."""

    def logits(self, hidden: Float[Tensor, "*n d"], level: int, children: Children) -> Float[Tensor, "*n w"]:
        """See `Backbone.logits`."""
        ...


@dataclass(frozen=True, slots=True)
class NextCodes:
    """What may follow each of n states in each of B rows; w places a state, unused ones included.

    Attributes:
        log_probability: float32 (float64 of such a model) [B, n, w], -inf in unused places.
        code: int64 [B, n, w].
        state: int64 [B, n, w], the state after the code (after the last level the item), -1 in unused places.
    """

    log_probability: Tensor
    code: Tensor
    state: Tensor


def next_codes(
    backbone: CodeHead,
    hidden: Float[Tensor, "B n d"],
    trie: EligibleTrie,
    state: Int64[Tensor, "B n"],
    level: int,
    normalise: Normalise = "allowed",
) -> NextCodes:
    """Log-probabilities of the codes that the trie allows after each state.

    Args:
        backbone: the model, for its head.
        hidden: last hidden states of the nodes that stand for the states.
        trie: what is allowed.
        state: states after ``level`` codes; nothing follows -1.
        level: level of the code that follows.
        normalise: over what the probabilities sum to 1.

    Raises:
        ConrecError: the logits are NaN or infinite.
    """
    children = trie.children(state, level)
    logits = _wide(backbone.logits(hidden, level, children))
    logits = torch.where(children.allowed, logits, -torch.inf)
    if normalise == "vocabulary":
        total = _vocabulary_total(backbone, hidden)
    else:
        total = torch.logsumexp(logits, dim=-1, keepdim=True)
        total = torch.where(total.isneginf(), torch.zeros_like(total), total)  # where nothing is allowed
    if not bool((total.isfinite() | (state < 0)[..., None]).all()):
        raise ConrecError(
            "the model's logits are not finite",
            where=f"code {level + 1}",
            mend="Its weights are broken, mostly because training diverged: train again with a lower learning_rate.",
        )
    return NextCodes(logits - total, children.code, children.state)


def _wide(logits: Tensor) -> Tensor:
    """The same in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _vocabulary_total(backbone: CodeHead, hidden: Float[Tensor, "B n d"]) -> Float[Tensor, "B n 1"]:
    """Log of the sum over the whole vocabulary, in slices that bound the memory."""
    head: torch.nn.Module = backbone.model.get_output_embeddings()
    flat = hidden.flatten(0, 1)
    step = max(1, CELLS // int(backbone.model.config.vocab_size))
    sums = [torch.logsumexp(_wide(head(one)), -1, keepdim=True) for one in flat.split(step)]
    total: Tensor = torch.cat(sums).unflatten(0, hidden.shape[:2])
    return total


def read(backbone: Backbone, prompts: Sequence[Sequence[int]], trie: EligibleTrie, padding: Padding) -> TokenTree:
    """The tree of some prompts.

    Raises:
        DataError: there is not one prompt for each request of the trie, or an empty one.
    """
    if len(prompts) != trie.rows:
        raise DataError(f"{len(prompts)} prompts", where="prompts", expected=f"one for each of {trie.rows} requests")
    return TokenTree(backbone, prompts, padding)


def log_probabilities(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    trie: EligibleTrie,
    codes: Int64[Tensor, "B G levels"],
    *,
    normalise: Normalise = "allowed",
    padding: Padding = "right",
) -> Float[Tensor, "B G levels"]:
    """Log-probability of each code of given items, with gradient where it is enabled.

    The prompt and the distinct prefixes of the codes are one row of the token tree; nothing is read twice.

    Args:
        backbone: the model.
        prompts: B prompts.
        trie: what is allowed for each.
        codes: of G items for each.
        normalise: over what probabilities sum to 1 at each code.
        padding: see `TokenTree`.

    Returns:
        float32; -inf from the first code on that the trie does not allow.
    """
    root = trie.root()
    # Of the prompt and then of the prefixes of each length: where they stand, and which of them each item's codes pass.
    states, passed = [root], [torch.zeros_like(codes[..., 0])]
    layers: list[tuple[Tensor, Tensor]] = []
    begin = 0  # of the prefixes one code shorter among all nodes
    for level, size in enumerate(backbone.sizes[:-1]):
        branch, index = distinct(passed[-1] * size + codes[..., level])
        parent, code = branch.div(size, rounding_mode="floor"), branch % size
        above = torch.full_like(parent, -1) if level == 0 else parent + begin
        begin += 0 if level == 0 else layers[-1][0].shape[1]
        layers.append((code + backbone.code_offset[level], above))
        states.append(trie.step(states[-1].gather(1, parent), code, level))
        passed.append(index)
    tree = read(backbone, prompts, trie, padding)
    hidden = tree.extend(*layers, keep=False).split([tokens.shape[1] for tokens, _ in layers], dim=1)
    nodes = (tree.root[:, None], *hidden)
    return torch.stack(
        [
            _of_code(next_codes(backbone, nodes[level], trie, state, level, normalise), index, codes[..., level])
            for level, (state, index) in enumerate(zip(states, passed, strict=True))
        ],
        dim=-1,
    )


def _of_code(following: NextCodes, node: Int64[Tensor, "B G"], code: Int64[Tensor, "B G"]) -> Float[Tensor, "B G"]:
    """Log-probability of one code after one node each, -inf where the code is not allowed there."""
    row = torch.arange(len(node), device=node.device)[:, None]
    match = (following.code[row, node] == code[..., None]) & (following.state[row, node] >= 0)
    place = match.int().argmax(-1)
    return following.log_probability[row, node, place].masked_fill(~match.any(-1), -torch.inf)


def distinct(values: Int64[Tensor, "B G"]) -> tuple[Int64[Tensor, "B U"], Int64[Tensor, "B G"]]:
    """The distinct values of each row in ascending order, and which of them each value is.

    U is the largest number of them in a row; shorter rows repeat their largest value.

    >>> values, index = distinct(torch.tensor([[5, 2, 5], [1, 2, 3]]))
    >>> values.tolist(), index.tolist()
    ([[2, 5, 5], [1, 2, 3]], [[1, 0, 1], [0, 1, 2]])
    """
    ordered, order = values.sort(dim=1)
    rank = torch.zeros_like(ordered)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(1)
    index = torch.empty_like(rank).scatter_(1, order, rank)
    unique = ordered[:, -1:].repeat(1, int(rank.max()) + 1)
    return unique.scatter_(1, rank, ordered), index

"""Many titles behind one prompt: the prompt is read once, and titles share what they begin with.

Titles become a tree of tokens that hangs behind the prompt in one row of `conrec.llm.tree.TokenTree`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.llm.backbone import Backbone, is_plain
from conrec.llm.tree import TokenTree

__all__ = ["Branches", "last_states", "log_probabilities_of", "merged", "token_logits"]


@dataclass(frozen=True, slots=True)
class Branches:
    """Sequences of tokens in B rows, C in each, as trees in which equal beginnings are one.

    Attributes:
        layers: for each depth the tokens of its nodes and their parents, int64 [B, n_t] each, numbered over all depths,
            -1 for the prompt; what `TokenTree.extend` takes. Rows with fewer nodes are filled up with nodes that nobody
            reads.
        node: int64 [B, C, longest], the node of each token of each sequence; -1 behind its end.
        length: int64 [B, C], tokens of each sequence.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    node: Tensor
    length: Tensor

    def rows(self, n: int) -> Branches:
        """The one row, n times."""
        layers = tuple((token.expand(n, -1), parent.expand(n, -1)) for token, parent in self.layers)
        return Branches(layers, self.node.expand(n, -1, -1), self.length.expand(n, -1))

    def to(self, device: torch.device) -> Branches:
        """The same on a device."""
        layers = tuple((token.to(device), parent.to(device)) for token, parent in self.layers)
        return Branches(layers, self.node.to(device), self.length.to(device))


def merged(sequences: Sequence[Sequence[Sequence[int]]]) -> Branches:
    """The trees of some rows of token sequences; a row may have fewer than others, and a sequence no token."""
    longest = max((len(one) for row in sequences for one in row), default=0)
    widest = max((len(row) for row in sequences), default=0)
    places = torch.full((len(sequences), widest, longest), -1, dtype=torch.int64)
    tokens: list[list[list[int]]] = [[[] for _ in range(longest)] for _ in sequences]
    parents: list[list[list[int]]] = [[[] for _ in range(longest)] for _ in sequences]
    for row, some in enumerate(sequences):
        known: list[dict[tuple[int, int], int]] = [{} for _ in range(longest)]
        for number, one in enumerate(some):
            above = -1
            for depth, code in enumerate(one):
                place = known[depth].setdefault((above, code), len(known[depth]))
                if place == len(tokens[row][depth]):
                    tokens[row][depth].append(code)
                    parents[row][depth].append(above)
                places[row, number, depth] = above = place
    layers: list[tuple[Tensor, Tensor]] = []
    begin = before = 0  # first node of this depth and of the one above
    for depth in range(longest):
        width = max(len(row[depth]) for row in tokens)
        token = torch.zeros(len(sequences), width, dtype=torch.int64)
        parent = torch.full((len(sequences), width), -1 if depth == 0 else before, dtype=torch.int64)
        for row, (own, above_of) in enumerate(zip(tokens, parents, strict=True)):
            token[row, : len(own[depth])] = torch.tensor(own[depth], dtype=torch.int64)
            if depth:
                parent[row, : len(own[depth])] = torch.tensor(above_of[depth], dtype=torch.int64) + before
        layers.append((token, parent))
        places[:, :, depth] += torch.where(places[:, :, depth] >= 0, begin, 0)
        begin, before = begin + width, begin
    return Branches(tuple(layers), places, (places >= 0).sum(-1))


def last_states(tree: TokenTree, branches: Branches) -> Float[Tensor, "B C d"]:
    """The hidden state after the last token of each sequence; after the prompt for one without tokens.

    Args:
        tree: the prompts, of which nothing changes.
        branches: the sequences, on the tree's device.
    """
    states = _states(tree, branches)
    place = _path(branches).gather(-1, branches.length[..., None])[..., 0]
    return states.gather(1, place[..., None].expand(-1, -1, states.shape[-1]))


def log_probabilities_of(
    backbone: Backbone, tree: TokenTree, branches: Branches, last: Int64[Tensor, "B C"]
) -> Float[Tensor, "B C"]:
    """Sum of the log-probabilities of the tokens of each sequence and of one last token behind it.

    Over the whole vocabulary; one pass of the model for all sequences, in which last tokens are not read.

    Args:
        backbone: the model.
        tree: the prompts, of which nothing changes.
        branches: the sequences without their last tokens.
        last: the last token of each.
    """
    states = _states(tree, branches)
    logits = token_logits(backbone, states)
    logits = logits - logits.logsumexp(-1, keepdim=True)
    following = torch.nn.functional.pad(branches.node, (0, 1), value=-1)
    if branches.layers:
        tokens = torch.cat([token for token, _ in branches.layers], dim=1)[:, None].expand(-1, last.shape[1], -1)
        following = torch.where(following < 0, -1, tokens.gather(-1, following.clamp(min=0)))
    following = following.scatter(-1, branches.length[..., None], last[..., None])
    row = torch.arange(len(states), device=states.device)[:, None, None]
    found = logits[row, _path(branches), following.clamp(min=0)]
    return found.masked_fill(following < 0, 0.0).sum(-1)


def token_logits(
    backbone: Backbone, hidden: Float[Tensor, "*n d"], tokens: Sequence[int] | None = None
) -> Float[Tensor, "*n tokens"]:
    """Logits of some tokens, or of the whole vocabulary, in the precision of the weights."""
    head = backbone.model.get_output_embeddings()
    with torch.autocast(hidden.device.type, enabled=False):
        if tokens is None or not is_plain(head):
            logits: Tensor = head(hidden.to(backbone.model.dtype))
            return logits if tokens is None else logits[..., list(tokens)]
        rows = torch.tensor(list(tokens), device=hidden.device)
        bias = None if head.bias is None else head.bias[rows]
        return torch.nn.functional.linear(hidden.to(head.weight.dtype), head.weight[rows], bias)


def _states(tree: TokenTree, branches: Branches) -> Float[Tensor, "B n d"]:
    """Hidden states of the prompt and then of each node."""
    root = tree.root[:, None]
    return torch.cat([root, tree.extend(*branches.layers, keep=False)], dim=1) if branches.layers else root


def _path(branches: Branches) -> Int64[Tensor, "B C longer"]:
    """Where `_states` has what stands before each token, and behind the last one: the prompt first."""
    return torch.nn.functional.pad(branches.node + 1, (1, 0))

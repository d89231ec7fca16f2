"""Generation under the trie: beam search, sampling of rollouts, and the probabilities of given items.

Probabilities are renormalised over the codes that the trie allows at each step. Every output is an
eligible catalogue item; none is returned twice, also when fewer items than beams are eligible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conrec.items.eligible import EligibleTrie
from conrec.llm.backbone import Backbone
from conrec.llm.tree import TokenTree

__all__ = ["Rollouts", "beam_search", "log_probabilities", "sample"]


@dataclass(frozen=True, slots=True)
class Rollouts:
    """G sampled items for each of B prompts.

    Attributes:
        item: int64 [B, G].
        codes: int64 [B, G, 3].
        log_probability: float [B, G, 3], of each code given those before it, over allowed codes.
    """

    item: Tensor
    codes: Tensor
    log_probability: Tensor


def _log_softmax(logits: Tensor, allowed: Bool[Tensor, "*n codes"]) -> Tensor:
    """Log-probabilities over the allowed codes, -inf elsewhere (everywhere, where none is allowed)."""
    logits = logits.float().masked_fill(~allowed, -torch.inf)
    total = torch.logsumexp(logits, dim=-1, keepdim=True)
    return torch.where(allowed, logits - torch.where(total.isinf(), torch.zeros_like(total), total), -torch.inf)


@torch.no_grad()
def beam_search(
    backbone: Backbone, prompts: Sequence[Sequence[int]], trie: EligibleTrie, k: int, width: int | None = None
) -> tuple[Int64[Tensor, "B K"], Float[Tensor, "B K"]]:
    """The k most probable items that a beam of the given width finds.

    Args:
        backbone: the model, in evaluation mode.
        prompts: B prompts.
        trie: the eligible items of each.
        k: items per prompt.
        width: prefixes kept after the first and second code, at least k; by default 2 k. Where the kept
            prefixes lead to fewer than min(k, eligible) items, the width is doubled and the step repeated.

    Returns:
        Items in descending order of log-probability, -1 behind the last, and their log-probabilities (-inf there).
    """
    width = max(k, width or 2 * k)
    tree = TokenTree(backbone, prompts)
    first = _log_softmax(backbone.head(tree.root, 0)[:, None], trie.mask(trie.root(), 0))[:, 0]
    wanted = torch.clamp(trie.eligible_counts(), max=k)
    while True:
        items, scores, complete = _search_below(backbone, tree, trie, first, width, k)
        found = (items >= 0).sum(1)
        if complete or bool((found >= wanted).all()):
            return items, scores
        tree.rewind()
        width *= 2


def _search_below(
    backbone: Backbone, tree: TokenTree, trie: EligibleTrie, first: Tensor, width: int, k: int
) -> tuple[Tensor, Tensor, bool]:
    """Second and third codes of a beam search, from the first codes' log-probabilities [B, codes].

    Also returns whether every allowed prefix was kept, so that a wider beam would find nothing more.
    """
    codes = first.shape[1]
    score, code_1 = first.topk(min(width, codes), dim=1)
    state = trie.step(trie.root().expand_as(code_1).contiguous(), code_1, 0).masked_fill(score.isinf(), -1)
    parents = torch.full_like(code_1, -1)
    hidden = tree.extend(code_1 + backbone.code_offset[0], parents)
    joint = (score[..., None] + _log_softmax(backbone.head(hidden, 1), trie.mask(state, 1))).flatten(1)
    kept = min(width, joint.shape[1])
    complete = width >= codes and int((~joint.isinf()).sum(1).max()) <= kept
    score, flat = joint.topk(kept, dim=1)
    parent, code_2 = flat // codes, flat % codes
    state = trie.step(state.gather(1, parent), code_2, 1).masked_fill(score.isinf(), -1)
    hidden = tree.extend(code_2 + backbone.code_offset[1], parent)
    joint = (score[..., None] + _log_softmax(backbone.head(hidden, 2), trie.mask(state, 2))).flatten(1)
    score, flat = joint.topk(min(k, joint.shape[1]), dim=1)
    items = trie.step(state.gather(1, flat // codes), flat % codes, 2).masked_fill(score.isinf(), -1)
    missing = k - items.shape[1]
    items = torch.nn.functional.pad(items, (0, missing), value=-1)
    return items, torch.nn.functional.pad(score, (0, missing), value=-torch.inf), complete


@torch.no_grad()
def sample(
    backbone: Backbone, prompts: Sequence[Sequence[int]], trie: EligibleTrie, group: int, generator: torch.Generator
) -> Rollouts:
    """Draw ``group`` independent items for each prompt from the policy itself.

    Every request needs at least one eligible item. The draw depends on ``generator`` alone.
    """
    tree = TokenTree(backbone, prompts)
    rows = len(prompts)
    state = trie.root().expand(rows, group).contiguous()
    hidden = tree.root[:, None].expand(-1, group, -1)
    codes, log_probabilities = [], []
    for level in range(trie.trie.levels):
        logs = _log_softmax(backbone.head(hidden, level), trie.mask(state, level))
        code = torch.multinomial(logs.exp().flatten(0, 1), 1, generator=generator).view(rows, group)
        log_probabilities.append(logs.gather(-1, code[..., None])[..., 0])
        codes.append(code)
        state = trie.step(state, code, level)
        if level + 1 < trie.trie.levels:
            nodes = torch.arange(group, device=state.device).expand(rows, -1)
            parents = torch.full_like(nodes, -1) if level == 0 else nodes + (level - 1) * group
            hidden = tree.extend(code + backbone.code_offset[level], parents)
    return Rollouts(state, torch.stack(codes, -1), torch.stack(log_probabilities, -1))


def log_probabilities(
    backbone: Backbone, prompts: Sequence[Sequence[int]], trie: EligibleTrie, codes: Int64[Tensor, "B G 3"]
) -> Float[Tensor, "B G 3"]:
    """Log-probability of each code of given items, over allowed codes, with gradient where it is enabled.

    The prompt and all first and second codes are one row of the token tree; nothing is read twice.
    """
    tree = TokenTree(backbone, prompts)
    rows, group, _ = codes.shape
    nodes = torch.arange(group, device=codes.device).expand(rows, -1)
    hidden = tree.root[:, None].expand(-1, group, -1)
    state = trie.root().expand(rows, group).contiguous()
    result = []
    for level in range(codes.shape[-1]):
        code = codes[..., level]
        logs = _log_softmax(backbone.head(hidden, level), trie.mask(state, level))
        result.append(logs.gather(-1, code[..., None])[..., 0])
        if level + 1 < codes.shape[-1]:
            state = trie.step(state, code, level)
            parents = torch.full_like(nodes, -1) if level == 0 else nodes + (level - 1) * group
            hidden = tree.extend(code + backbone.code_offset[level], parents)
    return torch.stack(result, -1)

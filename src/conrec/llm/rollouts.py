"""Rollouts: items drawn from the policy on the token tree, with replacement or without, or its most probable ones.

The draws run with gradient where it is enabled, so that one pass of the model is the rollout and the policy at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.errors import DataError
from conrec.items.eligible import EligibleTrie
from conrec.llm.backbone import Backbone
from conrec.llm.chance import gumbel, uniform
from conrec.llm.generation import beam_search
from conrec.llm.policy import distinct, log_probabilities, next_codes, read
from conrec.llm.tree import Padding, TokenTree

__all__ = ["Rollouts", "beams", "sample"]


@dataclass(frozen=True, slots=True)
class Rollouts:
    """G sampled items for each of B prompts.

    Attributes:
        item: int64 [B, G]; -1 where nothing could be drawn: no item is eligible, or fewer than G and none is drawn
            twice. Where items share a semantic ID, the first of them: what is drawn is the semantic ID.
        codes: int64 [B, G, levels], 0 where there is no item.
        log_probability: float32 [B, G, levels], of each code given those before it, over allowed codes; with the
            graph of the policy where gradients are enabled; 0 where there is no item.
        weight: float32 [B, G], w such that ``sum_i w_i f(item_i)`` estimates the mean of f under the policy
            without bias: 1 / G with replacement, p / q without; 0 where there is no item.
    """

    item: Tensor
    codes: Tensor
    log_probability: Tensor
    weight: Tensor


def sample(
    backbone: Backbone,
    prompts: Sequence[Sequence[int]],
    trie: EligibleTrie,
    group: int,
    seeds: Int64[Tensor, " B"],
    *,
    replacement: bool = True,
    padding: Padding = "right",
) -> Rollouts:
    """Draw ``group`` items for each prompt from the policy itself.

    Args:
        backbone: the model, in evaluation mode (dropout would make two policies of one).
        prompts: B prompts.
        trie: the eligible items of each.
        group: G.
        seeds: of each request; what is drawn depends on this, the prompt and the trie alone.
        replacement: whether an item may be drawn again. Without, items come by Gumbel top-k in the order of
            their perturbed log-probabilities (Kool, van Hoof and Welling, "Stochastic Beams and Where to Find
            Them", ICML 2019).
        padding: see `TokenTree`.

    Raises:
        DataError: group is below 1, or there is not one prompt and one seed for each request.
        ConrecError: the model's logits are not finite.
    """
    if group < 1 or len(seeds) != trie.rows:
        raise DataError(
            f"group {group}, {len(seeds)} seeds", where="rollouts", expected=f"at least 1, and {trie.rows} seeds"
        )
    draw = _with_replacement if replacement else _without_replacement
    return draw(backbone, read(backbone, prompts, trie, padding), trie, group, seeds.to(backbone.device))


def beams(backbone: Backbone, prompts: Sequence[Sequence[int]], trie: EligibleTrie, group: int) -> Rollouts:
    """The items that plain beam search finds, each with the weight 1 / G: they are no draws from the policy.

    That is how MiniOneRec (arXiv 2510.24431) takes its rollouts: they are distinct, and the hardest mistakes are among
    them. The beams are read once more for their log-probabilities, with gradient where it is enabled.

    Args:
        backbone, prompts, trie, group: as in `sample`.
    """
    item = beam_search(backbone, prompts, trie, group, certified=False).item
    found = item >= 0
    codes = trie.trie.codes[item.clamp(min=0)].long()
    logs = log_probabilities(backbone, prompts, trie, codes)
    weight = found.float() / found.sum(1, keepdim=True).clamp(min=1)
    return _where_found(item, codes, logs, weight)


def _with_replacement(backbone: Backbone, tree: TokenTree, trie: EligibleTrie, group: int, seeds: Tensor) -> Rollouts:
    """G independent draws; the rollouts of a group share the nodes of the prefixes they share."""
    row = torch.arange(trie.rows, device=seeds.device)[:, None]
    node = torch.zeros(trie.rows, group, dtype=torch.int64, device=seeds.device)  # of each rollout
    state, hidden = trie.root(), tree.root[:, None]
    kept = 0  # nodes before those of this level
    codes, logs, reached = [], [], node
    for level in range(trie.trie.levels):
        following = next_codes(backbone, hidden, trie, state, level)
        # Inversion: the first code whose cumulated probability exceeds the number drawn.
        cumulated = following.log_probability.detach().double().exp().cumsum(-1)[row, node]
        drawn = (
            uniform(seeds, level, torch.arange(group, device=seeds.device).expand(len(seeds), -1))[..., None]
            * cumulated[..., -1:]
        )
        place = (cumulated <= drawn).sum(-1, keepdim=True)
        last = (cumulated < cumulated[..., -1:]).sum(-1, keepdim=True)  # the last code of any probability
        place = place.minimum(last)[..., 0]
        code = following.code[row, node, place]
        codes.append(code)
        logs.append(following.log_probability[row, node, place])
        reached = following.state[row, node, place]
        if level + 1 < trie.trie.levels:
            width = following.code.shape[-1]
            branch, index = distinct(node * width + place)
            parent, at = branch.div(width, rounding_mode="floor"), branch % width
            tokens = following.code[row, parent, at] + backbone.code_offset[level]
            parents = torch.full_like(parent, -1) if level == 0 else parent + kept
            kept = 0 if level == 0 else kept + hidden.shape[1]
            state, node = following.state[row, parent, at], index
            hidden = tree.extend((tokens, parents))
    weight = torch.full(reached.shape, 1.0 / group, device=seeds.device)
    return _where_found(reached, torch.stack(codes, -1), torch.stack(logs, -1), weight)


def _without_replacement(
    backbone: Backbone, tree: TokenTree, trie: EligibleTrie, group: int, seeds: Tensor
) -> Rollouts:
    """Stochastic beam search (Kool et al. 2019, algorithm 1) with one beam more than asked, the threshold.

    In that paper's notation phi is the log-probability of a prefix and G its perturbed log-probability; the
    children's G are drawn so that the largest of them is their parent's.
    """
    state, hidden = trie.root(), tree.root[:, None]
    phi = torch.zeros(state.shape, dtype=torch.float64, device=seeds.device)
    # The root's own Gumbel is drawn, not set to 0 as there: the order would be the same, but not the weights.
    perturbed = gumbel(seeds, trie.trie.levels, torch.zeros_like(state))
    codes = torch.zeros(*state.shape, 0, dtype=torch.int64, device=seeds.device)
    logs = torch.zeros(*state.shape, 0, device=seeds.device)
    kept = 0
    for level in range(trie.trie.levels):
        following = next_codes(backbone, hidden, trie, state, level)
        n, width = following.code.shape[1:]
        below = phi[..., None] + following.log_probability.detach().double()
        # The noise of a prefix hangs on its number in the trie: the same wherever it stands in the batch.
        free = below + gumbel(seeds, level, following.state.clamp(min=0))
        children = _conditioned(free, perturbed).flatten(1)
        beams = min(group + 1, n * width)
        perturbed, flat = children.topk(beams, dim=1)
        parent = flat.div(width, rounding_mode="floor")
        phi = below.flatten(1).gather(1, flat)
        state = following.state.flatten(1).gather(1, flat)
        code = following.code.flatten(1).gather(1, flat)
        codes = torch.cat([_at(codes, parent), code[..., None]], dim=-1)
        log = following.log_probability.flatten(1).gather(1, flat)
        logs = torch.cat([_at(logs, parent), log[..., None]], dim=-1)
        if level + 1 < trie.trie.levels:
            parents = torch.full_like(parent, -1) if level == 0 else parent + kept
            kept = 0 if level == 0 else kept + n
            hidden = tree.extend((code + backbone.code_offset[level], parents))
    # The item behind the last one tells what an item had to exceed to be drawn (section 4.2 there).
    spare = group + 1 - phi.shape[1]
    phi = torch.nn.functional.pad(phi, (0, spare), value=-torch.inf)
    state = torch.nn.functional.pad(state, (0, spare), value=-1)[:, :group]
    codes, logs = (torch.nn.functional.pad(one, (0, 0, 0, spare))[:, :group] for one in (codes, logs))
    threshold = torch.nn.functional.pad(perturbed, (0, spare), value=-torch.inf)[:, group:]
    phi = phi[:, :group]
    included = -torch.expm1(-(phi - threshold).exp())  # q, the probability of being among the G
    weight = (phi.exp() / included).float()
    return _where_found(state, codes, logs, weight)


def _where_found(item: Tensor, codes: Tensor, logs: Tensor, weight: Tensor) -> Rollouts:
    """Rollouts in which what was not drawn holds nothing."""
    missing = item < 0
    return Rollouts(
        item,
        codes.masked_fill(missing[..., None], 0),
        logs.masked_fill(missing[..., None], 0.0),
        weight.masked_fill(missing, 0.0),
    )


def _conditioned(free: Float[Tensor, "B n w"], largest: Float[Tensor, "B n"]) -> Float[Tensor, "B n w"]:
    """Gumbels given that the largest of each node's w is ``largest``, without overflow (appendix B.3 there)."""
    top = free.max(-1, keepdim=True).values
    bound = largest[..., None]
    away = bound - free + torch.log1p(-(free - top).exp())
    result = bound - away.clamp(min=0) - torch.log1p((-away.abs()).exp())
    return torch.where(free.isneginf() | bound.isneginf(), -torch.inf, result)


def _at(values: Tensor, index: Int64[Tensor, "B m"]) -> Tensor:
    """Rows [B, m, c] of ``values`` [B, n, c]."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

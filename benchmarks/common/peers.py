"""What others do for the same lists: `generate` of transformers, and scoring every item one by one.

Both get what they need for a fair race: the peer's prefixes are prepared in advance, its scores are
renormalised over the allowed tokens as ours are, and no end token is looked for.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from conrec.llm.backbone import Backbone

__all__ = ["Lists", "PrefixDictionary", "TrieProcessor", "error_between", "exhaustive", "generate"]

logging.set_verbosity_error()  # remarks about generation settings, once a call


@dataclass(frozen=True, slots=True)
class Lists:
    """K items for each of B prompts, best first.

    Attributes:
        codes: int64 [B, K, 3].
        score: float32 [B, K].
    """

    codes: Tensor
    score: Tensor


class PrefixDictionary:
    """The usual way: a dictionary from a prefix to the tokens that may follow, asked once a beam a step.

    Args:
        codes: int64 [items, 3].
        offsets: token of code 0 of each level.
    """

    def __init__(self, codes: Tensor, offsets: tuple[int, ...]) -> None:
        following: dict[tuple[int, ...], set[int]] = {}
        self.tokens: list[list[int]] = (codes + torch.tensor(offsets)).tolist()
        for tokens in self.tokens:
            for level, token in enumerate(tokens):
                following.setdefault(tuple(tokens[:level]), set()).add(token)
        self.following = {prefix: sorted(tokens) for prefix, tokens in following.items()}

    def without(self, items: list[int]) -> dict[tuple[int, ...], list[int]]:
        """What follows where that changes because a request must not return some items.

        A prefix under which nothing is left is taken out of the one before it, as ours does.
        """
        changed: dict[tuple[int, ...], list[int]] = {}
        for item in items:
            tokens = self.tokens[item]
            for level in (2, 1, 0):
                prefix = tuple(tokens[:level])
                left = [one for one in changed.get(prefix, self.following[prefix]) if one != tokens[level]]
                changed[prefix] = left
                if left:
                    break
        return changed

    def settings(self, prompt_length: int, blocked: Tensor) -> dict[str, Any]:
        """What `generate` is given, for prompts with these blocked items each, int64 [B, M]."""
        changed = [self.without(items) for items in blocked.tolist()]

        def allowed(row: int, ids: Tensor) -> list[int]:
            prefix = tuple(ids[prompt_length:].tolist())
            return changed[row].get(prefix) or self.following[prefix]

        return {"prefix_allowed_tokens_fn": allowed}


class TrieProcessor(LogitsProcessor):
    """The fastest way that `generate` allows: dense tables of each request, one gather for all beams, no Python a beam.

    Args:
        codes: int64 [items, 3].
        codebook_size: C; the tables take (C + pairs) * C bytes a request, which is why it is no way for large
            codebooks.
        offsets: token of code 0 of each level.
        device: where the model is.
    """

    def __init__(self, codes: Tensor, codebook_size: int, offsets: tuple[int, ...], device: torch.device) -> None:
        self.codes, self.size, self.offsets, self.prompt_length = codes.to(device), codebook_size, offsets, 0
        pair, self.pair_of = torch.unique(self.codes[:, 0] * self.size + self.codes[:, 1], return_inverse=True)
        self.row = torch.zeros(self.size**2, dtype=torch.int64, device=device)  # of the third table
        self.row[pair] = torch.arange(len(pair), device=device)
        self.third = torch.zeros(len(pair), self.size, dtype=torch.bool, device=device)
        self.third[self.pair_of, self.codes[:, 2]] = True
        self.pair = pair
        self.tables: tuple[Tensor, ...] = ()

    def settings(self, prompt_length: int, blocked: Tensor) -> dict[str, Any]:
        """What `generate` is given, for prompts with these blocked items each, int64 [B, M]."""
        self.prompt_length = prompt_length
        blocked = blocked.to(self.third.device)
        row = torch.arange(len(blocked), device=blocked.device)[:, None]
        third = self.third.repeat(len(blocked), 1, 1)
        third[row, self.pair_of[blocked], self.codes[blocked, 2]] = False
        second = torch.zeros(len(blocked), self.size**2, dtype=torch.bool, device=blocked.device)
        second[:, self.pair] = third.any(2)
        second = second.view(-1, self.size, self.size)
        self.tables = (second.any(2), second, third)
        return {"logits_processor": LogitsProcessorList([self])}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of the level's allowed tokens, -inf for all others."""
        level = input_ids.shape[1] - self.prompt_length
        table = self.tables[level]
        # The copies of a prompt lie side by side.
        row = torch.arange(len(input_ids), device=input_ids.device) // (len(input_ids) // len(table))
        if level == 0:
            allowed = table[row]
        else:
            prefix = input_ids[:, self.prompt_length :] - torch.tensor(self.offsets[:level], device=input_ids.device)
            of = prefix[:, 0] if level == 1 else self.row[prefix[:, 0] * self.size + prefix[:, 1]]
            allowed = table[row, of]
        begin = self.offsets[level]
        part = scores[:, begin : begin + self.size].masked_fill(~allowed, -torch.inf)
        result = torch.full_like(scores, -torch.inf)
        result[:, begin : begin + self.size] = part
        return result


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Tensor,
    k: int,
    constraint: PrefixDictionary | TrieProcessor,
    blocked: Tensor,
    rows: int,
) -> Lists:
    """Beam search of transformers: k beams, three tokens, scores renormalised over what is allowed.

    Args:
        backbone: the model.
        prompts: int64 [B, T].
        k: beams, and items returned.
        constraint: how it is told what is allowed.
        blocked: int64 [B, M], items that each request must not return.
        rows: prompts at a time; each is copied k times, and more would not fit into memory.
    """
    codes, scores = [], []
    offsets = torch.tensor(backbone.code_offset, device=prompts.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for begin in range(0, len(prompts), rows):
            part = prompts[begin : begin + rows]
            output = backbone.model.generate(
                part,
                attention_mask=torch.ones_like(part),
                max_new_tokens=3,
                min_new_tokens=None,
                num_beams=k,
                num_return_sequences=k,
                do_sample=False,
                length_penalty=0.0,
                early_stopping=False,
                renormalize_logits=True,
                return_dict_in_generate=True,
                output_scores=True,
                **constraint.settings(part.shape[1], blocked[begin : begin + rows]),
            )
            codes.append((output.sequences[:, part.shape[1] :] - offsets).view(len(part), k, 3))
            scores.append(output.sequences_scores.view(len(part), k))
    return Lists(torch.cat(codes), torch.cat(scores))


@torch.no_grad()
def exhaustive(backbone: Backbone, prompts: Tensor, codes: Tensor, blocked: Tensor) -> Tensor:
    """Log-probability of every item for every prompt, float32 [B, items], by the model's plain forward pass.

    One row a prefix: the prompt's KV cache is copied for each, and the codes follow as ordinary tokens. No tree,
    no trie: which codes may follow is read off the list of items without the blocked ones [B, M], which get -inf.
    """
    model, size = backbone.model, backbone.codebook_size
    codes = codes.to(prompts.device)
    firsts, of_first = torch.unique(codes[:, 0], return_inverse=True)
    pairs, of_pair = torch.unique(codes[:, 0] * size + codes[:, 1], return_inverse=True)
    nothing = torch.zeros(len(firsts) + len(pairs) + 1, size, dtype=torch.bool, device=codes.device)
    first_tokens = firsts[:, None] + backbone.code_offset[0]
    pair_tokens = torch.stack([pairs // size + backbone.code_offset[0], pairs % size + backbone.code_offset[1]], 1)
    result = []
    for prompt, gone in zip(prompts, blocked.to(codes.device), strict=True):
        left = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        left[gone] = False
        allowed_1, allowed_2, allowed_3 = (one.clone() for one in nothing.split([1, len(firsts), len(pairs)]))
        allowed_1[0, codes[left, 0]] = True
        allowed_2[of_first[left], codes[left, 1]] = True
        allowed_3[of_pair[left], codes[left, 2]] = True
        read = model(prompt[None], use_cache=True, logits_to_keep=1)
        one = _over(read.logits[:, -1], allowed_1, backbone.code_offset[0])[0]
        two = _following(backbone, prompt, first_tokens, allowed_2, 1)
        three = _following(backbone, prompt, pair_tokens, allowed_3, 2)
        total = one[codes[:, 0]] + two[of_first, codes[:, 1]] + three[of_pair, codes[:, 2]]
        result.append(total.masked_fill(~left, -torch.inf))
    return torch.stack(result)


def _over(logits: Tensor, allowed: Tensor, begin: int) -> Tensor:
    """Log-probabilities over the allowed codes of a level whose first token is ``begin``, [rows, size]."""
    part = logits[:, begin : begin + allowed.shape[1]].float()
    return part - torch.logsumexp(part.masked_fill(~allowed, -torch.inf), 1, keepdim=True)


def _following(backbone: Backbone, prompt: Tensor, tokens: Tensor, allowed: Tensor, level: int) -> Tensor:
    """Log-probabilities of the codes of ``level`` after the prompt and each row of ``tokens``, float32 [rows, size]."""
    parts = []
    rows = max(1, 60_000 // len(prompt))
    for first in range(0, len(tokens), rows):
        part = tokens[first : first + rows]
        cache = backbone.model(prompt[None], use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(part))
        logits = backbone.model(part, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        parts.append(_over(logits, allowed[first : first + rows], backbone.code_offset[level]))
    return torch.cat(parts)


def error_between(one: Lists, two: Lists, codebook_size: int) -> float:
    """The largest difference of scores between two lists of the same prompts, item by item.

    The scores in order are compared, then each item's two scores where both lists have it; an item that only one
    list has counts with its distance to the other list's last score, which is 0 where it was a tie that decided.
    """
    worst = float((one.score.sort(1).values - two.score.sort(1).values).abs().max())
    for row in range(len(one.score)):
        found = [
            dict(zip(_keys(lists.codes[row], codebook_size), lists.score[row].tolist(), strict=True))
            for lists in (one, two)
        ]
        if len(found[0]) != len(one.score[row]) or len(found[1]) != len(two.score[row]):
            return float("inf")  # an item twice
        for mine, other in (found, found[::-1]):
            last = min(other.values())
            worst = max(worst, *(abs(score - other.get(item, last)) for item, score in mine.items()))
    return worst


def _keys(codes: Tensor, size: int) -> list[int]:
    keys: list[int] = ((codes[:, 0] * size + codes[:, 1]) * size + codes[:, 2]).tolist()
    return keys

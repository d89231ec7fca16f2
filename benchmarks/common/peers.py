"""What others do for the same lists: `generate` of transformers, and scoring every item one by one.

Both get what they need for a fair race: the peer's prefixes are prepared in advance, its scores are
renormalised over the allowed tokens as ours are, and no end token is looked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
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
        for row in codes.tolist():
            tokens = [code + offset for code, offset in zip(row, offsets, strict=True)]
            for level, token in enumerate(tokens):
                following.setdefault(tuple(tokens[:level]), set()).add(token)
        self.following = {prefix: sorted(tokens) for prefix, tokens in following.items()}

    def settings(self, prompt_length: int) -> dict[str, Any]:
        """What `generate` is given."""

        def allowed(_row: int, ids: Tensor) -> list[int]:
            return self.following[tuple(ids[prompt_length:].tolist())]

        return {"prefix_allowed_tokens_fn": allowed}


class TrieProcessor(LogitsProcessor):
    """The fastest way that `generate` allows: dense tables, one gather for all beams, no Python per beam.

    Args:
        codes: int64 [items, 3].
        codebook_size: C; the tables take C * C + pairs * C bytes, which is why it is no way for large codebooks.
        offsets: token of code 0 of each level.
        device: where the model is.
    """

    def __init__(self, codes: Tensor, codebook_size: int, offsets: tuple[int, ...], device: torch.device) -> None:
        codes, size = codes.to(device), codebook_size
        pair, row = torch.unique(codes[:, 0] * size + codes[:, 1], return_inverse=True)
        self.size, self.offsets, self.prompt_length = size, offsets, 0
        self.first = torch.zeros(size, dtype=torch.bool, device=device)
        self.first[codes[:, 0]] = True
        self.second = torch.zeros(size * size, dtype=torch.bool, device=device)
        self.second[pair] = True
        self.row = torch.zeros(size * size, dtype=torch.int64, device=device)
        self.row[pair] = torch.arange(len(pair), device=device)
        self.second = self.second.view(size, size)
        self.third = torch.zeros(len(pair), size, dtype=torch.bool, device=device)
        self.third[row, codes[:, 2]] = True

    def settings(self, prompt_length: int) -> dict[str, Any]:
        """What `generate` is given."""
        self.prompt_length = prompt_length
        return {"logits_processor": LogitsProcessorList([self])}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of the level's allowed tokens, -inf for all others."""
        level = input_ids.shape[1] - self.prompt_length
        if level == 0:
            allowed = self.first
        else:
            prefix = input_ids[:, self.prompt_length :] - torch.tensor(self.offsets[:level], device=input_ids.device)
            if level == 1:
                allowed = self.second[prefix[:, 0]]
            else:
                allowed = self.third[self.row[prefix[:, 0] * self.size + prefix[:, 1]]]
        begin = self.offsets[level]
        part = scores[:, begin : begin + self.size].masked_fill(~allowed, -torch.inf)
        result = torch.full_like(scores, -torch.inf)
        result[:, begin : begin + self.size] = part
        return result


@torch.no_grad()
def generate(
    backbone: Backbone, prompts: Tensor, k: int, constraint: PrefixDictionary | TrieProcessor, rows: int
) -> Lists:
    """Beam search of transformers: k beams, three tokens, scores renormalised over what is allowed.

    Args:
        backbone: the model.
        prompts: int64 [B, T].
        k: beams, and items returned.
        constraint: how it is told what is allowed.
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
                **constraint.settings(part.shape[1]),
            )
            codes.append((output.sequences[:, part.shape[1] :] - offsets).view(len(part), k, 3))
            scores.append(output.sequences_scores.view(len(part), k))
    return Lists(torch.cat(codes), torch.cat(scores))


@torch.no_grad()
def exhaustive(
    backbone: Backbone, prompts: Tensor, codes: Tensor, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Log-probability of every item for every prompt, float32 [B, items], by the model's plain forward pass.

    One row a prefix: the prompt's KV cache is copied for each, and the codes follow as ordinary tokens. No tree,
    no trie: which codes may follow is read off the list of items.
    """
    model, size = backbone.model, backbone.codebook_size
    codes = codes.to(prompts.device)
    firsts, of_first = torch.unique(codes[:, 0], return_inverse=True)
    pairs, of_pair = torch.unique(codes[:, 0] * size + codes[:, 1], return_inverse=True)
    allowed_2 = torch.zeros(len(firsts), size, dtype=torch.bool, device=codes.device)
    allowed_2[of_first, codes[:, 1]] = True
    allowed_3 = torch.zeros(len(pairs), size, dtype=torch.bool, device=codes.device)
    allowed_3[of_pair, codes[:, 2]] = True
    first_tokens = firsts[:, None] + backbone.code_offset[0]
    pair_tokens = torch.stack([pairs // size + backbone.code_offset[0], pairs % size + backbone.code_offset[1]], 1)
    result = []
    for row, prompt in enumerate(prompts):
        read = model(prompt[None], use_cache=True, logits_to_keep=1)
        one = _over(read.logits[0, -1], firsts, backbone.code_offset[0], size)
        two = _following(backbone, prompt, first_tokens, allowed_2, 1)
        three = _following(backbone, prompt, pair_tokens, allowed_3, 2)
        result.append(one[codes[:, 0]] + two[of_first, codes[:, 1]] + three[of_pair, codes[:, 2]])
        if progress is not None:
            progress(row)
    return torch.stack(result)


def _over(logits: Tensor, allowed: Tensor, begin: int, size: int) -> Tensor:
    """Log-probabilities over some codes of a level, [size]."""
    part = logits[begin : begin + size].float()
    return part - torch.logsumexp(part[allowed], 0)


def _following(backbone: Backbone, prompt: Tensor, tokens: Tensor, allowed: Tensor, level: int) -> Tensor:
    """Log-probabilities of the codes of ``level`` after the prompt and each row of ``tokens``, float32 [rows, size]."""
    parts = []
    begin, rows = backbone.code_offset[level], max(1, 60_000 // len(prompt))
    for first in range(0, len(tokens), rows):
        part = tokens[first : first + rows]
        cache = backbone.model(prompt[None], use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(part))
        logits = backbone.model(part, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        parts.append(logits[:, begin : begin + backbone.codebook_size].float())
    logits = torch.cat(parts)
    return logits - torch.logsumexp(logits.masked_fill(~allowed, -torch.inf), 1, keepdim=True)


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

"""Literal, slow forms of what the token tree computes: one row a rollout, nothing shared."""

from __future__ import annotations

import torch


def plain_log_probabilities(backbone, prompt, codes, eligible):
    """Log-probability of each of the codes of one item, over codes that lead to an eligible item.

    Args:
        backbone: the model.
        prompt: token ids.
        codes: its three or four codes.
        eligible: set of the codes of eligible items.
    """
    logs = []
    for level in range(len(codes)):
        prefix = tuple(codes[:level])
        ids = prompt + [backbone.code_offset[depth] + code for depth, code in enumerate(prefix)]
        logits = backbone.model(torch.tensor([ids])).logits[0, -1]
        row = logits[backbone.code_offset[level] : backbone.code_offset[level] + backbone.sizes[level]]
        allowed = sorted({one[level] for one in eligible if one[:level] == prefix})
        logs.append(row[codes[level]] - torch.logsumexp(row[allowed], 0))
    return torch.stack(logs)


def every_score(backbone, trie, prompts, blocked):
    """Log-probability of every item for each prompt, -inf for the blocked ones (lists of indices, -1 for none)."""
    scores = torch.full((len(prompts), trie.n_items), -torch.inf)
    for row, prompt in enumerate(prompts):
        free = sorted(set(range(trie.n_items)) - set(blocked[row].tolist()))
        eligible = {tuple(trie.codes[item].tolist()) for item in free}
        for item in free:
            scores[row, item] = plain_log_probabilities(backbone, prompt, trie.codes[item].tolist(), eligible).sum()
    return scores

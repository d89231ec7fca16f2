"""Losses over both signs: the softmax over the catalogue on what is disliked, and two that push down what is liked."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from conrec.baselines.signed.lessons import Answers

__all__ = ["OPPOSITE", "pairwise", "softmax_loss", "unlikelihood"]

CERTAIN = 1 - 1e-6
"""A probability beyond this counts as this, where the logarithm of its complement is taken."""


def softmax_loss(logits: Float[Tensor, "questions items"], right: Answers) -> Float[Tensor, ""]:
    """Cross-entropy against the whole catalogue, where a question's answers share its weight equally.

    ``sum over questions q of -(1 / |right(q)|) sum over i in right(q) of log softmax(logits(q))_i``; a question without
    answers adds nothing.
    """
    whole = torch.logsumexp(logits, dim=1)
    return (right.weight * (whole[right.question] - logits[right.question, right.item])).sum()


def unlikelihood(logits: Float[Tensor, "questions items"], dislikes: Answers, likes: Answers) -> Float[Tensor, ""]:
    """``-log(1 - p(like))``, averaged over the likes of a question and summed over questions.

    The "not-to-recommend" loss of Wang et al. (RecSys 2023, arXiv 2308.12256), with the signs turned round.
    """
    del dislikes
    chance = torch.exp(logits[likes.question, likes.item] - torch.logsumexp(logits, dim=1)[likes.question])
    return -(likes.weight * torch.log1p(-chance.clamp(max=CERTAIN))).sum()


def pairwise(logits: Float[Tensor, "questions items"], dislikes: Answers, likes: Answers) -> Float[Tensor, ""]:
    """``-log sigmoid(dislike - like)``, averaged over the likes of a question and summed over questions.

    ``dislike`` is the mean score of the question's dislikes: BPR (Rendle et al., UAI 2009) between them and each like.
    """
    disliked = logits.new_zeros(len(logits)).index_add(
        0, dislikes.question, dislikes.weight.to(logits.dtype) * logits[dislikes.question, dislikes.item]
    )
    return (likes.weight * F.softplus(logits[likes.question, likes.item] - disliked[likes.question])).sum()


OPPOSITE = {"unlikelihood": unlikelihood, "pairwise": pairwise}
"""The losses on likes by their name in the settings."""

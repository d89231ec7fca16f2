"""The shared-prompt token tree: one row holds a prompt once and all continuations behind it.

With three codes of output and hundreds of tokens of prompt, almost all work is the prompt. So the
prompt is read once; then first codes and second codes follow in the same row, each attending to the
prompt and to its own parent, at the position its depth gives. The third code is never fed back.
Beams, rollouts and the scores of given candidates all run on this tree, with or without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conrec.errors import ConfigError
from conrec.llm.backbone import Backbone

__all__ = ["TokenTree", "check_tree"]

TOLERANCE = 1e-4
"""Largest difference of logits, relative to their spread, that rounding may explain."""


class TokenTree:
    """A batch of prompts and the nodes that were appended to them.

    Args:
        backbone: the model; its ordinary attention and KV cache are used, with a 4-D mask.
        prompts: B non-empty token lists of any length; they are padded on the right, and the padding
            is never attended to, so that the composition of a batch changes nothing but rounding.

    Attributes:
        root: last hidden state of each prompt, float [B, d]; it predicts the first code.
    """

    def __init__(self, backbone: Backbone, prompts: Sequence[Sequence[int]]) -> None:
        self._backbone = backbone
        device = backbone.device
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        width = int(self._lengths.max())
        ids = torch.full((len(prompts), width), backbone.pad, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        place = torch.arange(width, device=device)
        self._visible = place < self._lengths[:, None]  # what later nodes may see of the row, bool [B, keys]
        causal = place[:, None] >= place
        own = torch.eye(width, dtype=torch.bool, device=device)  # padding sees itself, so that no row is empty
        allowed = (causal & self._visible[:, None, :]) | own
        hidden, self._cache = self._forward(ids.to(device), place.expand(len(prompts), -1), allowed, None)
        self.root: Tensor = hidden[torch.arange(len(prompts), device=device), self._lengths - 1]
        self._ancestors: Bool[Tensor, "B nodes keys"] | None = None
        self._depth: Int64[Tensor, "B nodes"] | None = None

    def extend(self, tokens: Int64[Tensor, "B n"], parents: Int64[Tensor, "B n"]) -> Float[Tensor, "B n d"]:
        """Append n nodes to every row.

        Args:
            tokens: token id of each node.
            parents: index of each node's parent among the nodes of earlier calls, -1 for the prompt.

        Returns:
            The last hidden state of each node; it predicts the code that follows.
        """
        rows, count = tokens.shape
        device = tokens.device
        before = 0 if self._ancestors is None else self._ancestors.shape[1]
        own = torch.eye(count, dtype=torch.bool, device=device).expand(rows, -1, -1)
        lineage = torch.zeros(rows, count, before + count, dtype=torch.bool, device=device)
        depth = torch.ones(rows, count, dtype=torch.long, device=device)
        if self._ancestors is not None and self._depth is not None:
            inner = parents.clamp(min=0)
            inherited = self._ancestors.gather(1, inner[..., None].expand(-1, -1, before))
            lineage[:, :, :before] = inherited & (parents >= 0)[..., None]
            depth = torch.where(parents >= 0, self._depth.gather(1, inner) + 1, depth)
        lineage[:, :, before:] = own
        allowed = torch.cat([self._visible[:, None, :].expand(-1, count, -1), lineage], dim=2)
        positions = self._lengths[:, None] + depth - 1
        hidden, self._cache = self._forward(tokens, positions, allowed, self._cache)
        if self._ancestors is None or self._depth is None:
            self._ancestors, self._depth = lineage, depth
        else:
            wider = torch.nn.functional.pad(self._ancestors, (0, count))
            self._ancestors = torch.cat([wider, lineage], dim=1)
            self._depth = torch.cat([self._depth, depth], dim=1)
        return hidden

    def rewind(self) -> None:
        """Forget all nodes; the prompts stay read."""
        if self._ancestors is not None:
            self._cache.crop(-self._ancestors.shape[1])
        self._ancestors = self._depth = None

    def _forward(
        self, ids: Tensor, positions: Tensor, allowed: Bool[Tensor, "B queries keys"], cache: Any
    ) -> tuple[Tensor, Any]:
        """Last hidden states of the decoder, and the grown KV cache."""
        model = self._backbone.model
        dtype = model.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        mask.masked_fill_(~allowed, torch.finfo(dtype).min)
        output = model.get_decoder()(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state, output.past_key_values


@torch.no_grad()
def check_tree(backbone: Backbone, prompt_tokens: int) -> None:
    """Compare the tree with the model's own forward pass, so that no model is wrong in silence.

    Models with windows, biases by distance or recurrent layers read a tree differently from a sequence.

    Args:
        backbone: the model.
        prompt_tokens: length of the longest prompt to expect.

    Raises:
        ConfigError: the two differ, or the model cannot read a tree at all.
    """
    training = backbone.model.training
    backbone.model.eval()
    chance = torch.Generator().manual_seed(0)
    vocabulary = min(1000, backbone.code_offset[0])
    prompts = [torch.randint(vocabulary, (n,), generator=chance).tolist() for n in (prompt_tokens, prompt_tokens // 3)]
    first = torch.tensor([[0, 1], [0, 1]], device=backbone.device) % backbone.codebook_size
    try:
        tree = TokenTree(backbone, prompts)
        tree.extend(first + backbone.code_offset[0], torch.full_like(first, -1))
        second = tree.extend(first.flip(1) + backbone.code_offset[1], torch.tensor([[0, 1], [0, 1]]).to(first.device))
        found = backbone.head(second, 2)
        worst = 0.0
        for row, prompt in enumerate(prompts):
            for node in range(2):
                codes = [int(first[row, node]), int(first.flip(1)[row, node])]
                ids = [*prompt, *(backbone.code_offset[level] + code for level, code in enumerate(codes))]
                logits = backbone.model(torch.tensor([ids], device=backbone.device)).logits[0, -1]
                begin = backbone.code_offset[2]
                plain = logits[begin : begin + backbone.codebook_size]
                spread = float((logits.max() - logits.min()).clamp(min=1e-6))
                worst = max(worst, float((plain - found[row, node]).abs().max()) / spread)
    except (ValueError, RuntimeError, AttributeError, TypeError, IndexError, NotImplementedError) as error:
        raise ConfigError(f"the model cannot read a token tree ({error})", where="backbone.name", mend=MEND) from None
    finally:
        backbone.model.train(training)
    if not worst <= TOLERANCE:
        raise ConfigError(
            f"the model reads a token tree otherwise than a sequence (relative difference {worst:.1e})",
            where="backbone.name",
            mend=MEND,
        )


MEND = "Take a model with full attention and positions by index, for instance of the Qwen3, Llama or SmolLM family."

"""The shared-prompt token tree: one row holds a prompt once and all continuations behind it.

With three codes of output and hundreds of tokens of prompt, almost all work is the prompt. So the
prompt is read once; then first codes and second codes follow in the same row, each attending to the
prompt and to its own parent, at the position its depth gives. The last code is never fed back; where there
is a fourth, third codes follow as the second ones do.
Beams, rollouts and the scores of given candidates all run on this tree, with or without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conrec.errors import ConfigError, DataError
from conrec.llm.backbone import Backbone
from conrec.llm.last_layer import reading_only

__all__ = ["Padding", "PrefixTree", "TokenTree", "check_tree"]

TOLERANCE = 1e-4
"""Largest difference of logits, relative to their spread, that rounding may explain."""


Padding = Literal["right", "left"]


@runtime_checkable
class PrefixTree(Protocol):
    """A batch of requests and the prefixes of semantic IDs that a model has read behind each; `TokenTree` is one.

    Attributes:
        root: last hidden state of each request, float [B, d]; it predicts the first code.
    """

    root: Tensor

    def extend(self, *layers: tuple[Tensor, Tensor], keep: bool = True) -> Float[Tensor, "B n d"]:
        """Append nodes, see `TokenTree.extend`."""
        ...

    def select(self, rows: Int64[Tensor, " n"]) -> None:
        """Go on with some of the rows only, in the given order."""
        ...


class TokenTree:
    """A batch of prompts and the nodes that were appended to them.

    Args:
        backbone: the model; its ordinary attention and KV cache are used, with a 4-D mask behind the prompt.
        prompts: B non-empty token lists of any length. Padding is never attended to, so that the composition
            of a batch changes nothing but rounding.
        padding: the side on which shorter prompts are filled up. On the right, causal attention hides the
            padding by itself and the prompt is read without a mask, which is the model's fastest path.

    Attributes:
        root: last hidden state of each prompt, float [B, d]; it predicts the first code.
        nodes: nodes appended so far to each row, those that were not kept included.

    Raises:
        DataError: no prompts, or an empty one.
    """

    def __init__(self, backbone: Backbone, prompts: Sequence[Sequence[int]], padding: Padding = "right") -> None:
        if not len(prompts) or not all(len(prompt) for prompt in prompts):
            raise DataError("there is an empty prompt, or none at all", where="prompts", expected="token lists")
        self._backbone = backbone
        self.nodes = 0
        device = backbone.device
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), backbone.pad, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            begin = width - len(prompt) if padding == "left" else 0
            ids[row, begin : begin + len(prompt)] = torch.tensor(prompt)
        place = torch.arange(width, device=device)
        if padding == "left":
            begin_of = width - self._lengths[:, None]
            self._visible = place >= begin_of  # what later nodes may see of the row, bool [B, keys]
            positions = (place - begin_of).clamp(min=0)
            own = torch.eye(width, dtype=torch.bool, device=device)  # padding sees itself, so that no row is empty
            allowed = ((place[:, None] >= place) & self._visible[:, None, :]) | own
            last = torch.full_like(self._lengths, width - 1)
        else:
            self._visible = place < self._lengths[:, None]
            positions, allowed, last = None, None, self._lengths - 1
        with reading_only(backbone.model.get_decoder(), last, width):
            hidden, self._cache = self._forward(ids.to(device), positions, allowed, None)
        self.root: Tensor = hidden[torch.arange(len(prompts), device=device), last]
        # Of the nodes that were kept: parents, and how deep they lie.
        self._parent = torch.zeros(len(prompts), 0, dtype=torch.long, device=device)
        self._depth = torch.zeros_like(self._parent)
        self._deepest = 0

    def extend(self, *layers: tuple[Tensor, Tensor], keep: bool = True) -> Float[Tensor, "B n d"]:
        """Append nodes to every row, in one pass of the model.

        Args:
            layers: pairs of int64 [B, n_i]: the token id of each node, and the number of its parent among the
                nodes kept so far and those of the layers before it in this call, -1 for the prompt.
            keep: whether later nodes may have these as parents; what is not kept leaves the KV cache again.

        Returns:
            The last hidden state of each node, layer by layer; it predicts the code that follows.
        """
        before, parent, depth = self._parent.shape[1], self._parent, self._depth
        for _, parents in layers:
            if parent.shape[1]:
                below = torch.where(parents >= 0, depth.gather(1, parents.clamp(min=0)) + 1, 1)
            else:
                below = torch.ones_like(parents)
            parent, depth = torch.cat([parent, parents], dim=1), torch.cat([depth, below], dim=1)
        deepest = self._deepest + len(layers)  # no node lies deeper
        ids = torch.cat([tokens for tokens, _ in layers], dim=1)
        self.nodes += ids.shape[1]
        prompt = self._visible[:, None, :].expand(-1, ids.shape[1], -1)
        allowed = torch.cat([prompt, _lineage(parent, before, deepest)], dim=2)
        positions = self._lengths[:, None] + depth[:, before:] - 1
        hidden, self._cache = self._forward(ids, positions, allowed, self._cache)
        if keep:
            self._parent, self._depth, self._deepest = parent, depth, deepest
        else:
            self._cache.crop(-ids.shape[1])
        return hidden

    def select(self, rows: Int64[Tensor, " n"]) -> None:
        """Go on with some of the rows only, in the given order."""
        self._cache.batch_select_indices(rows)
        self.root, self._lengths, self._visible = self.root[rows], self._lengths[rows], self._visible[rows]
        self._parent, self._depth = self._parent[rows], self._depth[rows]

    def _forward(
        self, ids: Tensor, positions: Tensor | None, allowed: Bool[Tensor, "B queries keys"] | None, cache: Any
    ) -> tuple[Tensor, Any]:
        """Last hidden states of the decoder, and the grown KV cache; without ``allowed``, plain causal attention."""
        model = self._backbone.model
        mask = None
        if allowed is not None:
            mask = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
            mask = mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)[:, None]
        with self._backbone.autocast():
            output = model.get_decoder()(
                input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
            )
        return output.last_hidden_state, output.past_key_values


def _lineage(parent: Int64[Tensor, "B all"], begin: int, deepest: int) -> Bool[Tensor, "B new all"]:
    """Which nodes each node from number ``begin`` on descends from, itself included."""
    rows, count = parent.shape
    new = count - begin
    # One column more, for the prompt: where the way up ends.
    lineage = torch.zeros(rows, new, count + 1, dtype=torch.bool, device=parent.device)
    way = torch.nn.functional.pad(torch.where(parent < 0, count, parent), (0, 1), value=count)
    above = torch.arange(begin, count, device=parent.device).expand(rows, -1)
    for _ in range(deepest):
        lineage.scatter_(2, above[..., None], True)
        above = way.gather(1, above)
    return lineage[..., :count]


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
    prompts = [
        torch.randint(vocabulary, (n,), generator=chance).tolist() for n in (prompt_tokens, -(-prompt_tokens // 3))
    ]
    first = torch.tensor([[0, 1], [0, 1]], device=backbone.device) % backbone.codebook_size
    try:
        tree = TokenTree(backbone, prompts)
        tree.extend((first + backbone.code_offset[0], torch.full_like(first, -1)))
        second = tree.extend((first.flip(1) + backbone.code_offset[1], torch.tensor([[0, 1], [0, 1]]).to(first.device)))
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
    except torch.OutOfMemoryError:
        raise
    # Models of any make are tried here; whatever one raises on a tree is why it is refused, and is named.
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

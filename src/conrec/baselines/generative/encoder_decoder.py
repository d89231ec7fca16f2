"""A T5 that reads a history once and writes many IDs from it: targets in training, beams and candidates afterwards.

The weights, their initialisation and what is computed are those of `transformers.T5ForConditionalGeneration` (tied
embeddings, relative positions; Raffel et al., arXiv 1910.10683). What is not its own is the way through: every row of
the encoder has P sequences of the decoder, which share the keys and values of the history. `transformers` would copy
the history once for each.

A causal encoder, where it is asked for, serves all targets of a stretch of history in one pass: behind the stretch
stand as many end tokens as there are places to be asked at, each at the position of its place and blind to what comes
after it. The decoder sees the history up to the place, and the place's own end token. Read alone, up to that place, a
history gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from conrec.baselines.generative.tokens import END, PAD
from conrec.errors import MissingExtraError
from conrec.settings.baselines.generative import EncoderDecoderSettings

try:
    from transformers import T5Config, T5ForConditionalGeneration
except ImportError as error:  # the extra is not there
    raise MissingExtraError("transformers", "train") from error

__all__ = ["EncoderDecoder", "Memory"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Histories as the decoder sees them.

    Attributes:
        keys: of each layer of the decoder, float [B, heads, S, d / heads].
        values: likewise.
        visible: bool [B or 1, P or 1, S], which of the S tokens each sequence of the decoder sees.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visible: Tensor

    def select(self, rows: Int64[Tensor, " n"]) -> Memory:
        """Of some of the rows, in the given order; of what `EncoderDecoder.encode` gave."""
        pick = tuple(one[rows] for one in self.keys), tuple(one[rows] for one in self.values)
        return Memory(*pick, self.visible[rows])


class EncoderDecoder(nn.Module):
    """The network; its parameters are those of a T5 of `transformers`.

    Args:
        vocabulary: number of tokens.
        settings: sizes, dropout, and whether the encoder is causal.
        states: how many states the trie has after each code; none where its states have no bias.

    Attributes:
        bias: a number for each state of each level, part of the logit of the code that leads to it.
    """

    def __init__(self, vocabulary: int, settings: EncoderDecoderSettings, states: Sequence[int] = ()) -> None:
        super().__init__()
        self.settings = settings
        self.bias = nn.ParameterList(torch.zeros(count) for count in states)
        self.t5: Any = T5ForConditionalGeneration(
            T5Config(
                vocab_size=vocabulary,
                d_model=settings.hidden_size,
                d_kv=settings.hidden_size // settings.heads,
                d_ff=settings.feed_forward,
                num_layers=settings.layers,
                num_heads=settings.heads,
                dropout_rate=settings.dropout,
                initializer_factor=settings.initial_scale,
                pad_token_id=PAD,
                decoder_start_token_id=PAD,
                eos_token_id=END,
            )
        )
        for name, weight in self.t5.named_parameters():
            if "layer_norm" in name:  # which the factor scales, too
                nn.init.ones_(weight)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.t5.shared.weight.device
        return device

    def encode(self, tokens: Int64[Tensor, "B S"]) -> Memory:
        """Read histories.

        Args:
            tokens: each with the end token behind it, padded before its beginning.
        """
        real = tokens != PAD
        place = torch.arange(tokens.shape[1], device=tokens.device)
        allowed = real[:, None, :] | (place == place[:, None])  # padding sees itself, so that no row is empty
        if self.settings.encoder == "causal":
            allowed = allowed & (place <= place[:, None])
        return self._memory(tokens, place, allowed, real[:, None, :])

    def encode_stretches(self, tokens: Int64[Tensor, "B S"], places: Int64[Tensor, " P"]) -> Memory:
        """Read stretches of history that are asked at P places each, with a causal encoder.

        Args:
            tokens: without end tokens, padded behind their ends.
            places: how many tokens stand before each place, the same for all rows. What is asked at a place behind
                the end of a row means nothing.
        """
        rows, width = tokens.shape
        place = torch.arange(width, device=tokens.device)
        before = place < places[:, None]
        own = torch.eye(len(places), dtype=torch.bool, device=tokens.device)
        visible = torch.cat([before, own], dim=1)
        history = F.pad(place <= place[:, None], (0, len(places)), value=False)
        tokens = torch.cat([tokens, tokens.new_full((rows, len(places)), END)], dim=1)
        return self._memory(tokens, torch.cat([place, places]), torch.cat([history, visible])[None], visible[None])

    def _memory(
        self,
        tokens: Int64[Tensor, "B S"],
        position: Int64[Tensor, " S"],
        allowed: Bool[Tensor, "rows S S"],
        visible: Bool[Tensor, "rows P S"],
    ) -> Memory:
        """The encoder's pass, and keys and values of its result for each layer of the decoder."""
        stack = self.t5.encoder
        first = stack.block[0].layer[0].SelfAttention
        bucket = first._relative_position_bucket(
            position - position[:, None],
            bidirectional=True,
            num_buckets=first.relative_attention_num_buckets,
            max_distance=first.relative_attention_max_distance,
        )
        bias = first.relative_attention_bias(bucket).permute(2, 0, 1)[None]
        bias = bias.masked_fill(~allowed[:, None], -torch.inf)
        x = self._drop(self.t5.shared(tokens))
        for block in stack.block:
            attention, feed = block.layer
            normed = _norm(attention.layer_norm, x)
            inner = attention.SelfAttention
            x = x + self._drop(self._attend(inner, normed, *_keys_and_values(inner, normed), bias))
            x = x + self._drop(self._feed(feed, x))
        x = self._drop(_norm(stack.final_layer_norm, x))
        pairs = [_keys_and_values(block.layer[1].EncDecAttention, x) for block in self.t5.decoder.block]
        return Memory(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs), visible)

    def decode(self, memory: Memory, codes: Int64[Tensor, "B P L"]) -> Float[Tensor, "B P L+1 d"]:
        """Read P beginnings of IDs behind each history.

        Args:
            memory: of B histories.
            codes: tokens of the first L codes of each ID; L may be 0. P is any number behind `encode`, and the number
                of places behind `encode_stretches`.

        Returns:
            Hidden states after the start and after each code, scaled as T5's head wants them: their product with the
            rows of the embedding are the logits of the code that follows.
        """
        rows, sequences, _ = codes.shape
        tokens = F.pad(codes, (1, 0), value=PAD)
        length = tokens.shape[-1]
        stack = self.t5.decoder
        place = torch.arange(length, device=tokens.device)
        own = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
        own = own.masked_fill(place > place[:, None], -torch.inf)
        visible = memory.visible.expand(-1, sequences, -1)
        across = torch.zeros(visible.shape, dtype=own.dtype, device=own.device).masked_fill(~visible, -torch.inf)
        across = across.repeat_interleave(length, dim=1)[:, None]
        x = self._drop(self.t5.shared(tokens.flatten(0, 1)))  # [B * P, L + 1, d]
        for block, keys, values in zip(stack.block, memory.keys, memory.values, strict=True):
            attention, cross, feed = block.layer
            normed = _norm(attention.layer_norm, x)
            inner = attention.SelfAttention
            x = x + self._drop(self._attend(inner, normed, *_keys_and_values(inner, normed), own))
            side_by_side = _norm(cross.layer_norm, x).view(rows, sequences * length, -1)
            found = self._attend(cross.EncDecAttention, side_by_side, keys, values, across)
            x = x + self._drop(found.view(x.shape))
            x = x + self._drop(self._feed(feed, x))
        x = self._drop(_norm(stack.final_layer_norm, x))
        if self.t5.config.scale_decoder_outputs:
            x = x * self.t5.config.d_model**-0.5
        return x.view(rows, sequences, length, -1)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.settings.dropout, self.training)

    def _attend(self, module: Any, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """Attention of `transformers`' T5Attention, over keys and values that are there already."""
        query = _heads(module, module.q(x))
        drop = self.settings.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias, dropout_p=drop, scale=1.0)
        out: Tensor = module.o(mixed.transpose(1, 2).flatten(2))
        return out

    def _feed(self, layer: Any, x: Tensor) -> Tensor:
        inner = layer.DenseReluDense
        out: Tensor = inner.wo(self._drop(F.relu(inner.wi(_norm(layer.layer_norm, x)))))
        return out


def _norm(layer: Any, x: Tensor) -> Tensor:
    """T5's root mean square norm in the numbers of ``x``; the module's own would round double precision to single."""
    normed: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + layer.variance_epsilon) * layer.weight
    return normed


def _heads(module: Any, x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], module.n_heads, module.key_value_proj_dim).transpose(1, 2)


def _keys_and_values(module: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return _heads(module, module.k(x)), _heads(module, module.v(x))

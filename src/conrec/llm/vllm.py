"""The same beam search through vLLM, for backbones that need several GPUs: one request a prefix, no code of vLLM's.

vLLM has no shared-prompt tree, but it keeps the KV cache of prompts that it has read (automatic prefix caching). So
the search goes level by level: every prefix is one request for one token, ``prompt + codes so far``, restricted to
the codes that the trie allows, and its log-probabilities come back for all of them. Public API only::

    vllm.LLM(model=…, enable_prefix_caching=True, logprobs_mode="processed_logprobs", max_logprobs=…)
    LLM.generate([{"prompt_token_ids": […]}, …], [SamplingParams(max_tokens=1, allowed_token_ids=…, logprobs=…), …])

*processed* log-probabilities are those after the restriction, so they are renormalised over the allowed codes, as
ours are; vLLM's default, *raw*, is before it. vLLM allows at most 1,024 tokens in ``allowed_token_ids``: where more
codes are allowed, several requests share them, with one code in common by which their normalisers are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from conrec.arrays import Array
from conrec.config import Context, PromptConfig
from conrec.errors import ConfigError, MissingExtraError
from conrec.items.eligible import EligibleTrie, LiveItems
from conrec.items.trie import Trie
from conrec.llm.backbone import load_tokens
from conrec.llm.generation import Beams
from conrec.llm.prefix_search import search
from conrec.llm.prompts import PromptBuilder
from conrec.llm.recommender import batches_of, ranked
from conrec.logs.log import Log
from conrec.recommender import Queries, Ranking

__all__ = ["MAX_ALLOWED", "VllmEngine", "VllmRecommender"]

MAX_ALLOWED = 1024
"""Most tokens that vLLM takes in ``SamplingParams.allowed_token_ids``."""
PROMPTS = 64
"""Prompts that are searched together; each brings up to four times k requests."""
SUM = 0.02
"""How far from 1 the probabilities of all allowed codes may sum; half-precision logits explain less."""


class VllmEngine:
    """A vLLM engine that says how probable each allowed token is after a prefix.

    Args:
        llm: a `vllm.LLM` with ``logprobs_mode="processed_logprobs"`` and enough ``max_logprobs``.
        sampling_params: `vllm.SamplingParams`.
    """

    def __init__(self, llm: Any, sampling_params: Callable[..., Any]) -> None:
        self._llm, self._sampling_params = llm, sampling_params

    @classmethod
    def load(cls, folder: Path, codebook_size: int, **options: Any) -> VllmEngine:
        """Start vLLM on a Hugging Face folder.

        Args:
            folder: what `conrec.llm.backbone.Backbone.save` wrote.
            codebook_size: codes of the largest level, for ``max_logprobs``.
            options: further arguments of `vllm.LLM`, such as ``tensor_parallel_size`` or ``dtype``.

        Raises:
            MissingExtraError: vLLM is not installed.
        """
        try:
            from vllm import LLM, SamplingParams  # noqa: PLC0415  (an extra)
        except ImportError:
            raise MissingExtraError("vllm", "vllm") from None
        settings = {
            "model": str(folder),
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "max_logprobs": min(codebook_size, MAX_ALLOWED),
        }
        return cls(LLM(**{**settings, **options}), SamplingParams)

    def log_probabilities(
        self, prefixes: Sequence[Sequence[int]], allowed: Sequence[Sequence[int]]
    ) -> list[Float[Array, " _"]]:
        """Log-probability of each allowed token after each prefix, over the allowed tokens, float64.

        Args:
            prefixes: token ids.
            allowed: distinct token ids for each prefix, at least one.

        Raises:
            ConfigError: the engine gives log-probabilities of something else.
        """
        chunks = [_chunks(tokens) for tokens in allowed]
        prompts = [
            {"prompt_token_ids": list(prefix)} for prefix, parts in zip(prefixes, chunks, strict=True) for _ in parts
        ]
        params = [self._request(chunk) for parts in chunks for chunk in parts]
        outputs = iter(self._llm.generate(prompts, params, use_tqdm=False) if prompts else [])
        return [_joined([_values(next(outputs), chunk) for chunk in parts]) for parts in chunks]

    def _request(self, tokens: list[int]) -> Any:
        """Parameters of a request; greedy, although the token that it chooses is of no interest."""
        return self._sampling_params(
            max_tokens=1, temperature=0.0, allowed_token_ids=tokens, logprobs=len(tokens), detokenize=False
        )


def _chunks(tokens: Sequence[int]) -> list[list[int]]:
    """Tokens in requests of at most `MAX_ALLOWED`, the first one in each of them."""
    if len(tokens) <= MAX_ALLOWED:
        return [list(tokens)]
    rest = MAX_ALLOWED - 1
    return [[tokens[0], *tokens[begin : begin + rest]] for begin in range(1, len(tokens), rest)]


def _values(output: Any, tokens: list[int]) -> Float[Array, " tokens"]:
    """Log-probabilities of the tokens of one request."""
    found = output.outputs[0].logprobs[0]
    values = np.asarray([found[token].logprob if token in found else np.nan for token in tokens], dtype=np.float64)
    if not abs(np.exp(values).sum() - 1) <= SUM:  # also where one is missing
        raise ConfigError(
            f"vLLM's log-probabilities of the {len(tokens)} allowed tokens are of something else "
            f"(they sum to {np.exp(values).sum():.3f})",
            where="vLLM",
            expected="those after the restriction to allowed tokens",
            mend='Start it with logprobs_mode="processed_logprobs" and max_logprobs of at least the codebook size.',
        )
    return values


def _joined(parts: list[Float[Array, " _"]]) -> Float[Array, " tokens"]:
    """Log-probabilities over all tokens, from those over each chunk, whose first token is the same."""
    if len(parts) == 1:
        return parts[0]
    relative = np.concatenate([[0.0], *(part[1:] - part[0] for part in parts)])
    normalised: Float[Array, " tokens"] = relative - np.logaddexp.reduce(relative)
    return normalised


@dataclass(frozen=True)
class VllmRecommender:
    """Ranks the catalogue for a (user, time) as `conrec.llm.recommender.GenerativeRecommender` does.

    Attributes:
        engine: holds the model.
        prompts: builds the same prompts.
        trie: the catalogue, on the CPU.
        context: what of a history the prompts show.
        certified: whether lists are proved to be exact (`prediction.certified`).
        budget: prefixes that may be read for one prompt before the proof is given up (`prediction.node_budget`).
        pool: restricts what is generated to live items.
    """

    engine: VllmEngine
    prompts: PromptBuilder
    trie: Trie
    context: Context
    certified: bool = True
    budget: int | None = None
    pool: LiveItems | None = None

    @classmethod
    def load(
        cls, folder: Path, trie: Trie, config: PromptConfig, context: Context, certified: bool, **options: Any
    ) -> VllmRecommender:
        """A trained backbone behind vLLM.

        Args:
            folder: ``models/NAME/model`` of a run.
            trie: the run's catalogue.
            config: the run's ``prompts``.
            context: what the prompts show.
            certified: whether lists are proved to be exact.
            options: further arguments of `vllm.LLM`.

        Raises:
            MissingExtraError: vLLM is not installed.
        """
        engine = VllmEngine.load(folder, max(trie.sizes), **options)
        trie = trie.to("cpu")
        prompts = PromptBuilder(load_tokens(folder, trie.sizes), trie.codes.numpy(), config)
        return cls(engine, prompts, trie, context, certified)

    def predict(self, log: Log, queries: Queries, k: int, *, history_eligible: bool = False) -> Ranking:
        """See `conrec.recommender.Recommender.predict`; the score is the log-probability of the item."""
        offsets = self.prompts.backbone.code_offset

        def find(prompts: list[list[int]], trie: EligibleTrie) -> Beams:
            return search(self.engine, offsets, prompts, trie, k, certified=self.certified, budget=self.budget)

        batches = batches_of(self.prompts, self.context, log, queries, PROMPTS, "generating with vLLM")
        budget = self.budget if self.certified else None
        return ranked(find, batches, self.pool or self.trie, log, queries, k, history_eligible, budget)

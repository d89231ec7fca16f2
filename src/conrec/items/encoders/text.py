"""Text embeddings of items, through sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from conrec.arrays import Array
from conrec.config import EncoderConfig
from conrec.errors import ConfigError
from conrec.items.encoders.cache import VectorCache, content_key
from conrec.items.encoders.models import fingerprint, load_encoder
from conrec.progress import meter

__all__ = ["encode_texts", "tower_of_texts"]


def encode_texts(
    texts: Sequence[str], config: EncoderConfig, device: str = "cpu", cache: VectorCache | None = None
) -> Float32[Array, "texts d"]:
    """Embed each text with the sentence encoder ``config.model``.

    Equal texts are encoded once, and batches are made from the sorted texts: the embedding of a text does not
    depend on where in ``texts`` it stands.

    Args:
        texts: any strings, empty ones too; cut at ``config.max_characters``.
        config: model, batch size, cut.
        device: "cpu" or "cuda".
        cache: vectors of batches that were computed before; None: all are computed.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ConfigError: the model cannot be had, or does not return finite vectors.
    """
    model = load_encoder(config.model, device)
    kind = f"text {fingerprint(config.model)}" if cache is not None else ""
    cut = [text[: config.max_characters] for text in texts]
    return tower_of_texts(model, cut, config.batch_size, cache, kind, where="encoder.model")


def tower_of_texts(
    model: Any, texts: Sequence[str], batch_size: int, cache: VectorCache | None, kind: str, where: str
) -> Float32[Array, "texts d"]:
    """Vectors of texts from a loaded model that reads texts.

    Args:
        model: a `SentenceTransformer`.
        texts: as they are encoded.
        batch_size: texts a batch.
        cache: where batches are looked up and kept.
        kind: what tells these vectors from others in the cache.
        where: the setting that names the model, for an error.

    Raises:
        ConfigError: a vector is not finite.
    """
    # Texts of similar length share a batch, so that little is padded.
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    # A model that also reads images would fetch a text that is an address and look at it; as a dict it stays a text.
    tells_apart = model.supports("image")
    parts: list[Array] = []
    with meter("encoding texts", len(distinct)) as step:
        for begin in range(0, len(distinct), batch_size):
            batch = distinct[begin : begin + batch_size]

            def compute(batch: list[str] = batch) -> Array:
                inputs = [{"text": text} for text in batch] if tells_apart else batch
                vectors: Array = model.encode(
                    inputs, batch_size=len(batch), convert_to_numpy=True, show_progress_bar=False
                ).astype(np.float32)
                broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
                if len(broken):
                    raise ConfigError(
                        f"the encoder gives no finite vector for {batch[broken[0]]!r}",
                        where=where,
                        mend="The weights are damaged or overflow in their number format: name another model.",
                    )
                return vectors

            keys = [content_key(text) for text in batch]
            parts.append(compute() if cache is None else cache.batch(kind, keys, compute))
            step(len(batch))
    if not parts:
        return np.empty((0, int(model.get_embedding_dimension())), dtype=np.float32)
    embeddings = np.concatenate(parts)
    row = {text: position for position, text in enumerate(distinct)}
    picked: Array = embeddings[[row[text] for text in texts]]
    return picked

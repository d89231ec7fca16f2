"""Vectors of items' images from a model that sees, and of their texts from the same model's text tower.

Both are scaled to unit length. Where the model takes an image and a text as one input (``encoder.image.joint``,
sentence-transformers' multimodal input), an item with an image has the vector of both together; models that take one at
a time, such as CLIP and SigLIP, give the normalised sum of the two towers' unit vectors instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conrec.arrays import Array
from conrec.config import EncoderConfig, ImageConfig
from conrec.errors import ConfigError
from conrec.items.encoders.cache import VectorCache, content_key
from conrec.items.encoders.images import LARGEST_SIDE, ImageError, decode_image, image_bytes
from conrec.items.encoders.models import fingerprint, load_encoder
from conrec.items.encoders.text import tower_of_texts
from conrec.progress import meter

__all__ = ["Seen", "see"]

AT_ONCE = 8
"""Addresses that are fetched at the same time."""
_Input = tuple[str, str]
_NONE = ImageError("no image")
_READING = 1
"""Goes up with every change of how images are read, so that vectors of before are not taken from a cache."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model makes of items with images and texts.

    Attributes:
        image: float32 [items, d], unit rows of the items whose image was read, zero rows of the others.
        text: float32 [items, d], unit rows of all items' texts in the same space; None where the model reads none.
        read: bool [items], whether the image was read.
        joint: whether image and text are one input of the model.
        refused: how many images were not read, by reason (`conrec.items.encoders.images.REASONS`).
        examples: the first item of each reason, by its place among the items, and what was found.
    """

    image: Array
    text: Array | None
    read: Array
    joint: bool
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[int, str]] = field(default_factory=dict)


def see(
    images: Sequence[str | None],
    texts: Sequence[str],
    config: EncoderConfig,
    device: str = "cpu",
    cache: VectorCache | None = None,
) -> Seen:
    """Look at the image of each item, and read its text with the same model.

    Equal sources are read once, and batches are made from the sorted sources: what an item gets does not depend on
    where it stands. An image that cannot be read is left out of its batch and counted.

    Args:
        images: a path, address or data URI for each item; None or empty where there is none.
        texts: of each item; cut at ``config.max_characters``.
        config: ``config.image`` names the model.
        device: "cpu" or "cuda".
        cache: vectors of batches that were computed before; None: all are computed.

    Raises:
        MissingExtraError: sentence-transformers or Pillow is not installed.
        ConfigError: no model is named, it cannot be had, does not read images, or gives vectors that are not finite.
    """
    if config.image.model is None:
        raise ConfigError("no model is named", where="encoder.image.model", expected="a CLIP or SigLIP model")
    model = load_encoder(config.image.model, device, "encoder.image.model")
    joint = config.image.joint and model.supports(("image", "text"))
    kind = ""
    if cache is not None:
        settings = (
            fingerprint(config.image.model, "encoder.image.model"),
            _READING,
            LARGEST_SIDE,
            config.image.max_pixels,
        )
        kind = " ".join(map(str, settings))
    told = None
    cut = [text[: config.max_characters] for text in texts]
    if model.supports("text"):
        told = _unit(tower_of_texts(model, cut, config.image.batch_size, cache, f"text {kind}", "encoder.image.model"))
    elif config.image.joint:
        raise ConfigError(
            f"the model {config.image.model!r} reads no text", where="encoder.image.joint", mend="Set it to false."
        )
    # An input is an image, or an image and the text that goes with it.
    inputs = [((source or "").strip(), text if joint else "") for source, text in zip(images, cut, strict=True)]
    looking = _Looking(model, config.image, cache, f"{'joint' if joint else 'image'} {kind}", joint)
    looking.all(sorted({one for one in inputs if one[0]}))
    rows = looking.rows
    read = np.asarray([one in rows for one in inputs], dtype=np.bool_)
    if rows:
        dim = len(next(iter(rows.values())))
    else:
        dim = told.shape[1] if told is not None else int(model.get_embedding_dimension())
    seen = np.zeros((len(inputs), dim), dtype=np.float32)
    for place in np.flatnonzero(read):
        seen[place] = rows[inputs[place]]
    if config.image.joint and not joint and told is not None:
        seen[read] = _unit(seen[read] + told[read])
    refused, examples = looking.reasons(inputs)
    return Seen(seen, told, read, joint, refused, examples)


@dataclass(slots=True)
class _Looking:
    """Batches of images that a model looks at.

    Attributes:
        rows: the unit vector of each input whose image was read.
        errors: why the others were not.
    """

    model: Any
    config: ImageConfig
    cache: VectorCache | None
    kind: str
    joint: bool
    rows: dict[_Input, Array] = field(default_factory=dict)
    errors: dict[_Input, ImageError] = field(default_factory=dict)

    def all(self, distinct: list[_Input]) -> None:
        """Look at all of them, batch by batch."""
        size = self.config.batch_size
        with meter("looking at images", len(distinct)) as step:
            for begin in range(0, len(distinct), size):
                batch = distinct[begin : begin + size]
                self._batch(batch)
                step(len(batch), note=f"{len(self.errors):,} refused")

    def reasons(self, inputs: list[_Input]) -> tuple[Counter[str], dict[str, tuple[int, str]]]:
        """How many of the items have no image that was read, by reason, and the first item of each reason."""
        refused: Counter[str] = Counter()
        examples: dict[str, tuple[int, str]] = {}
        for place, one in enumerate(inputs):
            if one in self.rows:
                continue
            error = self.errors.get(one, _NONE)
            refused[error.reason] += 1
            examples.setdefault(error.reason, (place, str(error)))
        return refused, examples

    def _batch(self, batch: list[_Input]) -> None:
        # Images of equal content are looked at once, so that what is stored is what was returned.
        place: dict[bytes, int] = {}
        pictures: list[Any] = []
        where: dict[_Input, int] = {}
        for one, data in zip(batch, _bytes_of([source for source, _ in batch], self.config), strict=True):
            try:
                if isinstance(data, ImageError):
                    raise data
                key = content_key(data, one[1])
                if key not in place:
                    picture = decode_image(data, self.config, where=one[0][:100])
                    pictures.append({"image": picture, "text": one[1]} if self.joint else picture)
                    place[key] = len(place)
                where[one] = place[key]
            except ImageError as error:
                self.errors[one] = error
        if not pictures:
            return

        def compute() -> Array:
            vectors: Array = self.model.encode(
                pictures, batch_size=len(pictures), convert_to_numpy=True, show_progress_bar=False
            ).astype(np.float32)
            if not np.isfinite(vectors).all():
                raise ConfigError(
                    "the image encoder gives vectors that are not finite",
                    where="encoder.image.model",
                    mend="The weights are damaged or overflow in their number format: name another model.",
                )
            return vectors

        vectors = compute() if self.cache is None else self.cache.batch(self.kind, list(place), compute)
        vectors = _unit(vectors)
        self.rows.update({one: vectors[row] for one, row in where.items()})


def _bytes_of(sources: list[str], config: ImageConfig) -> list[bytes | ImageError]:
    """The files behind the sources, in their order; addresses several at a time."""

    def read(source: str) -> bytes | ImageError:
        try:
            return image_bytes(source, config)
        except ImageError as error:
            return error

    if not config.addresses:
        return [read(source) for source in sources]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(read, sources))


def _unit(rows: Array) -> Array:
    """Rows of length one; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit

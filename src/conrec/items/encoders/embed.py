"""The one vector of each item that is quantised: every view with a weight is encoded, and they are fused.

Views are "text" (`conrec.items.encoders.text`), "image" (`conrec.items.encoders.vision`) and, from feedback, "negative"
and "positive". An item without an image that can be read has its text's vector from the same model in the image's
place. The two towers of such a model fill two narrow cones that do not meet (the modality gap: Liang et al., 2022,
arXiv 2203.02053); so that these items do not end up in a corner of their own, the texts' vectors are shifted by the
mean image less the mean text of the training items that have both. Unlike there, they are not brought back to unit
length, so that the two means agree exactly. Where no training item has an image that can be read, no gap is known, and
texts stand for the images of later items too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from conrec.arrays import Array
from conrec.config import EncoderConfig
from conrec.errors import ArtefactError, ConfigError, DataError
from conrec.items.encoders import text as texts_of_items
from conrec.items.encoders import vision
from conrec.items.encoders.cache import VectorCache
from conrec.items.encoders.fusion import Fusion, View
from conrec.items.encoders.models import weights_of
from conrec.progress import console

__all__ = ["CACHE", "FUSION", "Embedded", "embed_items", "embed_new", "item_texts"]

FUSION = "fusion.safetensors"
"""Below ``RUN/items``."""
CACHE = "cache"
"""Folder of a run's own vectors, below the run."""
_WHERE = {"text": "encoder.model", "image": "encoder.image.model"}


@dataclass(frozen=True, slots=True)
class Embedded:
    """Items as vectors.

    Attributes:
        embeddings: float32 [items, d].
        fusion: how the views became one vector, to do the same with later items.
        report: JSON value: ``dim``; ``views``, each with ``dim``, ``weight`` and the share of items that it says
            something of; and with an image model ``images``: how many were ``read``, how many items have
            ``text_instead`` or are ``absent``, why (``refused``), an example of each reason, whether the model reads
            image and text as one input (``joint``), and the length of the ``gap`` between the two.
    """

    embeddings: Array
    fusion: Fusion
    report: dict[str, Any]


def embed_items(
    items: pa.Table,
    train_items: Bool[Array, " items"],
    config: EncoderConfig,
    collaborative: Mapping[str, Float32[Array, "items _"]],
    *,
    device: str,
    cache: Path,
) -> Embedded:
    """Embed a catalogue, and fit the fusion on its items of the training period.

    What training items get does not depend on the others: the two are encoded apart, in batches of their own, and
    means, lengths, gap and components are those of the training items.

    Args:
        items: schema `conrec.logs.schema.ITEMS`.
        train_items: items with an event in the training period, at least one.
        config: models and weights of the views.
        collaborative: "negative" and "positive", those of them that have a weight; a row of zeros is an item of
            which nothing is known.
        device: "cpu" or "cuda".
        cache: folder of the run's own vectors, used where ``config.cache`` names none.

    Raises:
        MissingExtraError: sentence-transformers or Pillow is not installed.
        ConfigError: a model cannot be had or gives vectors that are not finite, or too many components.
        DataError: there is nothing to embed: feedback alone has a weight, and no two items have it from one user.
    """
    weights = _weights(config)
    missing = [name for name in weights if name not in (*collaborative, "text", "image")]
    if missing:
        raise ValueError(f"encoder.collaborative has a weight for {missing[0]!r} and there are no such vectors")
    if not {"text", "image"}.intersection(weights) and not any(collaborative[name].any() for name in weights):
        raise DataError(
            f"no two items were given {' or '.join(weights)} feedback by the same user",
            where="encoder.collaborative",
            expected="items that users have in common, where feedback alone has a weight",
            mend="Give encoder.text_weight or an image model as well.",
        )
    groups = [np.flatnonzero(train_items)]
    if not train_items.all():
        groups.append(np.flatnonzero(~train_items))
    encoded = []
    with _cache(config, cache, device) as vectors:
        for rows in groups:
            feedback = {name: collaborative[name][rows] for name in weights if name in collaborative}
            encoded.append(_encode(items.take(rows), tuple(weights), config, feedback, device, vectors))
    gap = encoded[0].gap()
    fusion = Fusion.fit(
        encoded[0].views(gap), weights, config.pca_dim, whiten=config.whiten, gap=gap, made_from=_models(config)
    )
    fused = [fusion.apply(one.views(gap)) for one in encoded]
    embeddings = np.empty((items.num_rows, fused[0].shape[1]), dtype=np.float32)
    for rows, part in zip(groups, fused, strict=True):
        embeddings[rows] = part
    return Embedded(embeddings, fusion, _report(items, groups, encoded, fusion))


def embed_new(items: pa.Table, fusion: Fusion, config: EncoderConfig, device: str, cache: Path) -> Embedded:
    """Embed items that came after the fusion was fitted; nothing is known of them from feedback.

    Args:
        items: schema `conrec.logs.schema.ITEMS`.
        fusion: of the run.
        config: with the models of the run.
        device: "cpu" or "cuda".
        cache: as for `embed_items`.

    Raises:
        ArtefactError: the configuration names other models than the fusion was fitted with.
        MissingExtraError: sentence-transformers or Pillow is not installed.
        ConfigError: a model cannot be had or gives vectors that are not finite, or the run is of feedback alone, of
            which there is none for new items.
    """
    names = tuple(name for name in fusion.names if name in ("text", "image"))
    if not names:
        raise ConfigError(
            f"items are embedded by {' and '.join(fusion.names)} feedback alone, of which new items have none",
            where="encoder",
            expected="a view of texts or images",
            mend="Run the items stage again with the new items in the log, or with encoder.text_weight above 0.",
        )
    for name, fitted in fusion.made_from:
        model = config.model if name == "text" else config.image.model
        if model is None or weights_of(model, _WHERE[name]) != fitted:
            raise ArtefactError(
                f"the {name} vectors of this run are of another model than {model!r}",
                where="items/fusion.safetensors",
                mend="Name the model that the run was made with, or run the items stage again.",
            )
    with _cache(config, cache, device) as vectors:
        encoded = _encode(items, names, config, {}, device, vectors)
    embeddings = fusion.apply(encoded.views(fusion.gap))
    return Embedded(embeddings, fusion, _report(items, [np.arange(items.num_rows)], [encoded], fusion))


def item_texts(prepared_items: pa.Table) -> list[str]:
    """What is embedded of each item: its text, or its title where the text is empty."""
    columns = prepared_items["text"].to_pylist(), prepared_items["title"].to_pylist()
    return [text or title or "" for text, title in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Some items as every encoder has them."""

    text: View | None
    seen: vision.Seen | None
    feedback: dict[str, View]

    def gap(self) -> Array | None:
        """Mean image less mean text of the items that have both, float32 [d]; None where there is none, or no text."""
        if self.seen is None or self.seen.text is None or not self.seen.read.any():
            return None
        both = self.seen.read
        means = [rows[both].mean(axis=0, dtype=np.float64) for rows in (self.seen.image, self.seen.text)]
        gap: Array = (means[0] - means[1]).astype(np.float32)
        return gap

    def views(self, gap: Array | None) -> dict[str, View]:
        """What is fused."""
        views = {} if self.text is None else {"text": self.text}
        if self.seen is not None:
            views["image"] = _image_view(self.seen, gap)
        return {**views, **self.feedback}


def _encode(
    items: pa.Table,
    names: tuple[str, ...],
    config: EncoderConfig,
    feedback: Mapping[str, Array],
    device: str,
    cache: VectorCache,
) -> _Encoded:
    texts = item_texts(items)
    text, seen = None, None
    if "text" in names:
        rows = texts_of_items.encode_texts(texts, config, device, cache)
        text = View(rows, np.ones(len(texts), dtype=np.bool_))
    if "image" in names:
        seen = vision.see(items["image"].to_pylist(), texts, config, device, cache)
    known = {name: View(rows, np.asarray(rows.any(axis=1))) for name, rows in feedback.items()}
    return _Encoded(text, seen, known)


def _image_view(seen: vision.Seen, gap: Array | None) -> View:
    if seen.text is None:
        return View(seen.image, seen.read)
    rows = seen.text
    if gap is not None:
        rows = rows + gap
        rows[seen.read] = seen.image[seen.read]
    return View(rows, np.ones(len(rows), dtype=np.bool_))


def _weights(config: EncoderConfig) -> dict[str, float]:
    """Views with a weight, in the order in which they stand side by side."""
    weights = {
        "text": config.text_weight,
        "image": config.image.weight if config.image.model else 0.0,
        "negative": config.collaborative.negative_weight,
        "positive": config.collaborative.positive_weight,
    }
    return {name: weight for name, weight in weights.items() if weight}


def _models(config: EncoderConfig) -> dict[str, str]:
    models = {"text": config.model, "image": config.image.model}
    return {
        name: weights_of(model, _WHERE[name]) for name, model in models.items() if model and name in _weights(config)
    }


def _cache(config: EncoderConfig, own: Path, device: str) -> VectorCache:
    import torch  # noqa: PLC0415 - takes seconds, and comes with an extra

    machine = (device, torch.get_num_threads(), torch.__version__)
    return VectorCache(config.cache or own, shared=config.cache is not None, machine=machine)


def _report(items: pa.Table, groups: list[Array], encoded: list[_Encoded], fusion: Fusion) -> dict[str, Any]:
    """See `Embedded`; the line about images is printed here."""
    views = fusion.describe()["views"]
    total = max(items.num_rows, 1)
    for view in views:
        parts = [one.views(fusion.gap).get(view["name"]) for one in encoded]
        view["share"] = sum(int(part.present.sum()) for part in parts if part is not None) / total
    report: dict[str, Any] = {"dim": fusion.dim, "views": {view.pop("name"): view for view in views}}
    seen = [one.seen for one in encoded if one.seen is not None]
    if seen:
        report["images"] = _of_images(items["item_id"].to_pylist(), groups, seen, fusion)
        console.print(f"        {_line(report['images'])}", markup=False, highlight=False, soft_wrap=True)
    return report


def _of_images(names: list[str], groups: list[Array], seen: list[vision.Seen], fusion: Fusion) -> dict[str, Any]:
    refused: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for rows, one in zip(groups, seen, strict=True):
        refused.update(one.refused)
        for reason, (place, found) in one.examples.items():
            examples.setdefault(reason, f"item {names[int(rows[place])]!r}: {found}")
    instead = seen[0].text is not None
    return {
        "read": sum(int(one.read.sum()) for one in seen),
        "text_instead": refused.total() if instead else 0,
        "absent": 0 if instead else refused.total(),
        "refused": dict(sorted(refused.items())),
        "examples": dict(sorted(examples.items())),
        "joint": any(one.joint for one in seen),
        "gap": None if fusion.gap is None else float(np.linalg.norm(fusion.gap)),
    }


def _line(images: Mapping[str, Any]) -> str:
    """Such as: images: 1,405 read, 277 have their text instead (250 no image, 27 truncated)."""
    parts = [f"{images['read']:,} read"]
    for key, words in (("text_instead", "have their text instead"), ("absent", "are absent")):
        if images[key]:
            why = ", ".join(f"{count:,} {reason}" for reason, count in images["refused"].items())
            parts.append(f"{images[key]:,} {words} ({why})")
    return f"images: {', '.join(parts)}"

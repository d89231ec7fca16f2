"""How much of an item's codes stays when its embedding, its text, the seed or the catalogue changes; raw codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int32

from conrec.arrays import Array
from conrec.config import RqVaeConfig
from conrec.items.diagnosis.matching import by_chance, globally, kept, pairs, within_parents
from conrec.items.diagnosis.paraphrase import RULES, paraphrase
from conrec.items.encoders.embed import item_texts
from conrec.items.quantisers.quantiser import Quantiser, train_quantiser
from conrec.logs.titles import titles_of
from conrec.progress import meter
from conrec.seeds import derive, generator

__all__ = ["HELD_OUT", "NOISE", "SAMPLE", "describe_stability", "in_other_words", "under_noise"]

NOISE = (0.01, 0.05, 0.1)
"""Lengths of the noise, as shares of the length of the row."""
DRAWS = 5
"""Noises of each length that are drawn for an item."""
SAMPLE = 2000
"""Items that get noise and other words; a seeded sample where there are more."""
HELD_OUT = 0.1
"""Share of the training items that the smaller catalogue lacks."""

Embed = Callable[[pa.Table], Float[Array, "items d"]]
"""From items of the catalogue to embeddings, as the run makes those of items that come later."""


def describe_stability(
    model: Quantiser,
    embeddings: Float[Array, "items d"],
    train_items: Bool[Array, " items"],
    items: pa.Table,
    config: RqVaeConfig,
    seed: int,
    embed: Embed | None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Share of items that keep their first 1, 2 and 3 raw codes under five changes (``items/stability.json``).

    Args:
        model: trained on the training items' rows.
        embeddings: of all items.
        train_items: see above.
        items: the catalogue (`conrec.logs.schema.ITEMS`), for the texts.
        config: what ``model`` was trained with; the codebook size is taken from the model.
        seed: that ``model`` was trained with. Noise and samples follow from it.
        embed: for the paraphrases, see `Embed`. The change that it sees between the two texts is added to the item's
            embedding, so that what the text does not say (its users' feedback) stays. None leaves them out.
        device: to train on.

    Returns:
        ``items``, ``training_items``, ``codebook_size``, ``seed`` and, with ``kept`` for [1 code, 2 codes, 3 codes]:
        ``noise``: for each ``relative_norm`` a Gaussian direction of exactly that share of the row's length is added,
        mean of `DRAWS` over ``items``;
        ``paraphrase``: for each ``rule`` of `paraphrase.RULES`, over the ``items`` of the sample whose
        text it changes, with the mean ``cosine`` between both embeddings; null without ``embed``;
        ``retrained``: against a model of another ``seed`` on the same items, over all items, codes matched
        (``within_parents``, with its ``chance``, and ``globally``), and ``pairs``: see `diagnosis.matching`;
        ``fewer``: against a model of the same seed whose training lacked ``held_out`` of the training items, a seeded
        tenth; over the training items that both were trained on, in the same words;
        ``appended``: that smaller catalogue and its model, the ``items`` held out now appended without training: what
        is ``kept`` of the codes of the items that were there.
    """
    size, n = model.codebooks.shape[1], len(embeddings)
    sized = config.model_copy(update={"codebook_size": size})
    train_rows = np.flatnonzero(train_items)
    other_seed = derive(seed, "stability", "another seed")
    out = generator(seed, "stability", "held out").permutation(train_rows)[: round(HELD_OUT * len(train_rows))]
    stay = np.setdiff1d(train_rows, out)
    codes = model.encode(embeddings)
    with meter("stability", 4) as step:
        noise = under_noise(model, embeddings, seed)
        step(note="paraphrases")
        words = None if embed is None else in_other_words(model, embeddings, items, embed, seed)
        step(note="another seed")
        retrained = train_quantiser(embeddings[train_rows], sized, other_seed, device).encode(embeddings)
        step(note="fewer items")
        # Fewer items than codes cannot start a codebook: then there is no smaller catalogue to compare with.
        smaller = train_quantiser(embeddings[stay], sized, seed, device) if len(out) and len(stay) >= size else None
        step()
    return {
        "items": n,
        "training_items": len(train_rows),
        "codebook_size": size,
        "seed": seed,
        "noise": noise,
        "paraphrase": words,
        "retrained": {"seed": other_seed, **_matched(codes, retrained, seed)},
        "fewer": None
        if smaller is None
        else {"held_out": len(out), **_matched(smaller.encode(embeddings[stay]), codes[stay], seed)},
        "appended": None if smaller is None else _appended(smaller, embeddings, stay, out),
    }


def _sample(n: int, seed: int, purpose: str) -> Array:
    random = generator(seed, "stability", purpose)
    return np.arange(n) if n <= SAMPLE else np.sort(random.choice(n, SAMPLE, replace=False))


def under_noise(model: Quantiser, embeddings: Float[Array, "items d"], seed: int) -> list[dict[str, Any]]:
    """The part ``noise`` of `describe_stability`, of the items given; a seeded sample where they are many."""
    rows = _sample(len(embeddings), seed, "noise rows")
    points = embeddings[rows].astype(np.float64)
    codes = model.encode(embeddings[rows])
    length = np.linalg.norm(points, axis=1, keepdims=True)
    found = []
    for relative in NOISE:
        random = generator(seed, "stability", "noise", str(relative))
        shares = []
        for _ in range(DRAWS):
            direction = random.standard_normal(points.shape)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            shares.append(kept(codes, model.encode((points + relative * length * direction).astype(np.float32))))
        found.append({"relative_norm": relative, "items": len(rows), "kept": np.mean(shares, axis=0).tolist()})
    return found


def in_other_words(
    model: Quantiser, embeddings: Float[Array, "items d"], items: pa.Table, embed: Embed, seed: int
) -> list[dict[str, Any]]:
    """The part ``paraphrase`` of `describe_stability`, of the items given; a seeded sample where they are many."""
    rows = _sample(len(embeddings), seed, "paraphrased rows")
    texts, titles, categories = item_texts(items), titles_of(items), items["category"].to_pylist()
    said: list[str] = []
    place: list[int] = []
    ends: list[int] = []
    for rule in RULES:
        for position, row in enumerate(rows.tolist()):
            words = paraphrase(texts[row], titles[row], categories[row], rule)
            if words != texts[row]:
                said.append(words)
                place.append(position)
        ends.append(len(said))
    # All rules at once: encoders take seconds to load.
    sample = items.take(rows)
    before, again = embed(sample), sample.take(pa.array(place, pa.int64()))
    after = embed(again.set_column(again.schema.get_field_index("text"), "text", pa.array(said, pa.string())))
    here = embeddings[rows][place]
    # Fusion is affine, so that the difference is that of the fused vectors whatever stands beside the text.
    there = here + (after - before[place])
    lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    cosine = (here * there).sum(axis=1) / np.maximum(lengths, 1e-12)
    found = []
    for rule, begin, end in zip(RULES, [0, *ends], ends, strict=False):
        own = slice(begin, end)
        some = end > begin
        found.append(
            {
                "rule": rule,
                "items": end - begin,
                "cosine": float(cosine[own].mean()) if some else None,
                "kept": kept(model.encode(here[own]), model.encode(there[own])) if some else None,
            }
        )
    return found


def _matched(first: Int32[Array, "items 3"], second: Int32[Array, "items 3"], seed: int) -> dict[str, Any]:
    return {
        "items": len(first),
        "within_parents": within_parents(first, second),
        "chance": by_chance(first, second, generator(seed, "stability", "chance")),
        "globally": globally(first, second),
        "pairs": pairs(first, second),
    }


def _appended(model: Quantiser, embeddings: Array, there: Array, new: Array) -> dict[str, Any]:
    """Codes of the items that were there, before and after the new ones were encoded beside them."""
    together = np.concatenate([there, new])
    after = model.encode(embeddings[together])[: len(there)]
    return {"items": len(new), "kept": kept(model.encode(embeddings[there]), after)}

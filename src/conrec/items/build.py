"""The stage that turns a catalogue into semantic IDs and rebuilt embeddings: everything in ``RUN/items``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from conrec.arrays import Array
from conrec.artefacts import write_json, write_tensors
from conrec.config import Config
from conrec.errors import DataError, MissingExtraError
from conrec.items.diagnosis.diagnostics import describe_items, unit_rows
from conrec.items.encoders.embed import CACHE, FUSION, embed_items, item_texts
from conrec.items.naming.collisions import most_of_a_first_code, name_items
from conrec.items.semantic_ids import LEVELS, write_semantic_ids
from conrec.items.space import QUANTISER, REBUILT, SEMANTIC_IDS_FILE, TRIE, ItemSpace, read_items
from conrec.progress import console

__all__ = ["ItemSpace", "build_items", "item_texts", "read_items"]


def build_items(
    prepared_items: pa.Table,
    train_items: Bool[Array, " items"],
    config: Config,
    folder: Path,
    seed: int,
    collaborative: Mapping[str, Float32[Array, "items _"]] | None = None,
) -> ItemSpace:
    """Embed, quantise and name every item, and write ``RUN/items``.

    What training items get (embeddings, codebooks, codes, names) does not depend on the others: they are embedded
    and encoded apart, named first, and decide the codebook size. With one exception, which is printed and written
    into the diagnostics as ``codebook_size_by_training_items``: where ``rqvae.codebook_size`` is left out and more
    items share a first code than the two levels below can name, all codebooks are trained again with twice as many
    codes, and so on until all items fit or the training items cannot start more.

    Files: ``embeddings.safetensors`` ("embedding" float32 [items, d]), ``fusion.safetensors`` (see
    `conrec.items.encoders.fusion`), ``quantiser.safetensors``,
    ``semantic_ids.parquet``, ``trie.safetensors`` (of the resolved codes), ``rebuilt.safetensors`` ("rebuilt" float32
    [items, d], see `ItemSpace`) and ``diagnostics.json`` (see `diagnostics.describe_items`; its "curve" is
    that of the training).

    Args:
        prepared_items: the catalogue, `conrec.logs.schema.ITEMS`.
        train_items: items with an event in the training period; the RQ-VAE is trained on them alone, and
            encodes them all.
        config: sections encoder, rqvae and run.
        folder: ``RUN/items``.
        seed: of the RQ-VAE.
        collaborative: item vectors from feedback, see `conrec.items.encoders.embed.embed_items`.

    Raises:
        DataError: an empty catalogue, no item of the training period, or more items than there are names.
        ConfigError: an encoder that cannot be had, more codes than items.
        MissingExtraError: torch or sentence-transformers is not installed.
    """
    n_items = prepared_items.num_rows
    if len(train_items) != n_items:
        raise ValueError(f"{len(train_items)} training marks for {n_items} items")
    if not train_items.any():
        raise DataError(
            f"none of the {n_items} items has an event in the training period",
            where="items",
            expected="items to train the codebooks on",
            mend="Look at the periods: protocol.validation_cut may be too early, or the item file is of another log.",
        )
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "train")
    # Torch comes with an extra; reading the items back does without it.
    import torch  # noqa: PLC0415

    from conrec.items.quantisers.quantiser import check_embeddings, train_quantiser  # noqa: PLC0415
    from conrec.items.quantisers.sizes import larger_codebook, resolve_codebook_size  # noqa: PLC0415
    from conrec.items.trie import Trie  # noqa: PLC0415
    from conrec.items.trie_file import save_trie  # noqa: PLC0415

    device = config.run.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # Before the slow part: a codebook that cannot be filled.
    n_train = int(train_items.sum())
    size = by_training_items = resolve_codebook_size(config.rqvae, n_train)
    embedded = embed_items(
        prepared_items, train_items, config.encoder, collaborative or {}, device=device, cache=folder.parent / CACHE
    )
    embeddings = embedded.embeddings
    check_embeddings(embeddings)
    embedded.fusion.save(folder / FUSION)
    write_tensors(folder / "embeddings.safetensors", {"embedding": embeddings})
    while True:
        sized = config.rqvae.model_copy(update={"codebook_size": size})
        model = train_quantiser(embeddings[train_items], sized, seed, device)
        codes = _apart(model.encode, embeddings, train_items)
        larger = None if config.rqvae.codebook_size is not None else larger_codebook(size, n_train)
        most = most_of_a_first_code(codes)
        if most <= size * size or larger is None or config.semantic_ids.collisions != "nearest":
            break
        console.print(f"        {most} items share a first code of {size}: trained again with {larger} a level")
        size = larger
    model.save(folder / QUANTISER)
    latents = _apart(model.latents, embeddings, train_items)
    ids = name_items(codes, latents, model.codebooks.cpu().numpy(), train_items, config.semantic_ids)
    item_ids = prepared_items["item_id"].to_pylist()
    write_semantic_ids(folder / SEMANTIC_IDS_FILE, item_ids, ids)
    save_trie(folder / TRIE, Trie.of(ids))
    rebuilt = unit_rows(_apart(model.rebuild, codes, train_items))
    write_tensors(folder / REBUILT, {"rebuilt": rebuilt})
    from_resolved = _apart(model.rebuild, ids.resolved[:, :LEVELS], train_items)
    centred = embeddings - model.mean.cpu().numpy()
    described = describe_items(ids, centred, rebuilt, from_resolved, train_items, prepared_items, seed)
    described["codebook_size_by_training_items"] = by_training_items
    described["embedding"] = embedded.report
    write_json(folder / "diagnostics.json", {**described, "curve": model.curve})
    return ItemSpace(tuple(item_ids), ids, rebuilt)


def _apart(function: Callable[[Array], Array], rows: Array, train_items: Array) -> Array:
    """``function`` of the training rows, and of the others where there are any, put back into their order.

    The sums behind a row are rounded by how many rows are computed with it; apart, no row of a training item
    changes by as much as a bit when items are added that are not of the training period.
    """
    first = function(rows[train_items])
    result = np.empty((len(rows), *first.shape[1:]), dtype=first.dtype)
    result[train_items] = first
    if not train_items.all():
        result[~train_items] = function(rows[~train_items])
    return result

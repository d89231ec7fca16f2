"""New items get semantic IDs beside those of a trained run, and no item that is there already moves.

They are embedded with the run's encoder, quantised by its codebooks and named in what is free, as those items were
that the run knew and did not train on. `growing.growth` says where the result lies, `growing.drift` whether
the codebooks still fit what comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

from conrec import __version__
from conrec.arrays import Array
from conrec.artefacts import hash_file, read_parquet, write_parquet, write_tensors
from conrec.config import Config, ItemColumns
from conrec.errors import ArtefactError, DataError
from conrec.folders import held
from conrec.items.diagnosis.diagnostics import unit_rows
from conrec.items.encoders.embed import CACHE, FUSION, embed_new
from conrec.items.encoders.fusion import Fusion
from conrec.items.growing.appended import Appended
from conrec.items.growing.drift import Fit, Reference, Verdict, drift_of, fit_of, verdict_of
from conrec.items.growing.growth import (
    APPENDED_FILE,
    ITEMS_FILE,
    Catalogue,
    current_catalogue,
    what_it_grows_from,
    writing_catalogue,
)
from conrec.items.growing.reference import reference_of
from conrec.items.naming.collisions import name_more, without_room
from conrec.items.semantic_ids import LEVELS, SemanticIds, write_semantic_ids
from conrec.items.space import QUANTISER, REBUILT, SEMANTIC_IDS_FILE, TRIE, ItemSpace, hash_semantic_ids, read_items
from conrec.logs.counts import FileCounts
from conrec.logs.schema import ITEMS
from conrec.logs.sources.table import own_item_columns, read_item_file

if TYPE_CHECKING:
    from conrec.items.quantisers.quantiser import Quantiser

__all__ = ["APPENDED", "append_items"]

APPENDED = pa.schema(
    [("item_id", pa.string()), ("append", pa.int32()), ("error", pa.float64()), ("cosine", pa.float64())]
)
"""One row an appended item: in which append it came, from 1, and how well it is rebuilt (`drift.Fit`)."""
NO_NAME = "no semantic ID left for it"


def append_items(
    run_folder: Path,
    new_items: Path,
    config: Config,
    train_items: Callable[[], Bool[Array, " items"]],
    device: str = "cpu",
) -> Appended:
    """Give the items of a file that a run does not know semantic IDs, and write ``RUN/catalogue``.

    Args:
        run_folder: a run whose items stage is finished; its own folders stay as they are.
        new_items: an items file as of a `table` source: .parquet, .csv, .tsv, .jsonl or text with any separator.
        config: the run's; of ``data`` the mapping of columns and the separators. Where the run's source is no `table`,
            columns are taken by our names, and so are those of the ``items.parquet`` of a run or a catalogue.
        train_items: says which of the run's own items its codebooks were trained on; asked once the file is read.
        device: "cpu" or "cuda".

    Raises:
        RunLockedError: another append, or the run itself, is at work.
        ArtefactError: the items stage is not finished, a file is damaged or of another encoder, or the catalogue that
            is there grew from other codebooks.
        DataError: the file cannot be used as it is, or of its new items, some of which were never seen before, none
            can be named.
        MissingExtraError: torch or the encoder's package is not installed.
    """
    _check_stage(run_folder / "items")
    with held(run_folder, "Wait for it, and give the same command again."):
        there = current_catalogue(run_folder)
        space = read_items(there.folder)
        table, counts = _read(new_items, space.item_ids, config)
        if not table.num_rows:
            return Appended(there.folder, counts, there.growth, 0)

        import torch  # noqa: PLC0415  (comes with an extra)

        from conrec.items.quantisers.quantiser import load_quantiser  # noqa: PLC0415

        torch.set_num_threads(config.run.threads or len(os.sched_getaffinity(0)))
        quantiser = load_quantiser(run_folder / "items" / QUANTISER).to(device)
        embedded = embed_new(
            table, Fusion.load(run_folder / "items" / FUSION), config.encoder, device, run_folder / CACHE
        )
        asked, unnamed_before = table["item_id"].to_pylist(), set(there.growth.get("unnamed", ()))
        named = _named(space, table, embedded.embeddings, counts, quantiser, config, unnamed_before)
        if named is None:
            counts = _refused(counts, table, np.ones(len(asked), dtype=np.bool_))
            return Appended(there.folder, counts, there.growth, 0)
        table, counts, grown, fit = named
        lost = set(asked) - set(grown.item_ids)
        unnamed = (lost, (lost | unnamed_before) - set(grown.item_ids))
        number = 1 + len(there.growth.get("appends", ()))
        every = pa.concat_tables([_before(there), _rows(table, number, fit)])
        reference = reference_of(run_folder / "items", quantiser, train_items(), config.run.seed)
        growth = _growth(run_folder, there, space, grown, every, unnamed, reference, config.run.seed)
        growth["appends"][-1] |= {"file": new_items.name, "hash": hash_file(new_items), "counts": counts.to_json()}
        items = pa.concat_tables([read_parquet(there.items, ITEMS), table])
        with writing_catalogue(run_folder, number, growth) as folder:
            _write(folder, items, grown, every)
        now = current_catalogue(run_folder)
        return Appended(now.folder, counts, now.growth, table.num_rows)


def _check_stage(folder: Path) -> None:
    """Refuse a run whose items are not finished, or were made before new items could be embedded like them."""
    needed = ("manifest.json", FUSION)
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        again = "The run was made by an earlier version: give its command again, which makes its items anew."
        raise ArtefactError(
            f"{missing[0]!r} is missing" if folder.is_dir() else "this run has no items yet",
            where=str(folder if folder.is_dir() else folder.parent),
            expected="a run whose items stage is finished",
            mend=again if missing == [FUSION] else "Give the command of the run (again): it continues.",
        )


def _read(path: Path, known: Collection[str], config: Config) -> tuple[pa.Table, FileCounts]:
    """The new items of a file, and its counts."""
    data = config.data
    clean = path.suffix == ".parquet" and path.is_file() and _is_of_a_run(path)
    if clean:
        data = data.model_copy(update={"item_columns": ItemColumns()})
    if clean or data.source != "table":
        data = data.model_copy(update={"item_columns": own_item_columns(path, data)})
    return read_item_file(path, data, known)


def _named(
    space: ItemSpace,
    table: pa.Table,
    embeddings: Array,
    counts: FileCounts,
    quantiser: Quantiser,
    config: Config,
    unnamed_before: Collection[str],
) -> tuple[pa.Table, FileCounts, ItemSpace, Fit] | None:
    """Quantise and name the new items.

    Returns:
        Those for which there was a name left, their counts, the whole catalogue and how well the new items are rebuilt;
        None where there is no name left for any, as was said of all of them before.
    """
    from conrec.items.quantisers.quantiser import check_embeddings  # noqa: PLC0415  (torch comes with an extra)

    check_embeddings(embeddings)
    codes, latents = quantiser.encode(embeddings), quantiser.latents(embeddings)
    full = without_room(space.semantic_ids, codes)
    if full.all() and set(table["item_id"].to_pylist()) <= set(unnamed_before):
        return None
    if full.all():
        raise DataError(
            f"{NO_NAME}: all {len(full)} new items, the first is item {table['item_id'][0].as_py()!r}",
            where=counts.file,
            mend="The codes that these items have are full: train the run again with them, and with a larger "
            "rqvae.codebook_size.",
        )
    if full.any():
        counts = _refused(counts, table, full)
        table, embeddings, codes, latents = (
            table.filter(pa.array(~full)), embeddings[~full], codes[~full], latents[~full]
        )  # fmt: skip
    books = quantiser.codebooks.cpu().numpy()
    ids = name_more(space.semantic_ids, codes, latents, books, config.semantic_ids.cap)
    rebuilt = quantiser.rebuild(codes)
    grown = ItemSpace(
        (*space.item_ids, *table["item_id"].to_pylist()), ids, np.concatenate([space.rebuilt, unit_rows(rebuilt)])
    )
    return table, counts, grown, fit_of(embeddings - quantiser.mean.cpu().numpy(), rebuilt)


def _refused(counts: FileCounts, table: pa.Table, full: Array) -> FileCounts:
    """The counts with the items for which no name was left."""
    lost = int(full.sum())
    refused = {**counts.refused, NO_NAME: lost}
    examples = {**counts.examples, NO_NAME: f"item {table['item_id'][int(full.argmax())].as_py()!r}"}
    return FileCounts(counts.file, counts.rows, counts.kept - lost, refused, counts.noted, examples)


def _rows(table: pa.Table, number: int, fit: Fit) -> pa.Table:
    """What is kept of each new item, schema `APPENDED`."""
    numbers = pa.array(np.full(len(fit), number, dtype=np.int32))
    return pa.table(
        {"item_id": table["item_id"], "append": numbers, "error": fit.error, "cosine": fit.cosine}, schema=APPENDED
    )


def _before(there: Catalogue) -> pa.Table:
    """What is kept of each item that was appended before."""
    return read_parquet(there.folder / APPENDED_FILE, APPENDED) if there.growth else APPENDED.empty_table()


def _growth(
    run_folder: Path,
    there: Catalogue,
    space: ItemSpace,
    grown: ItemSpace,
    every: pa.Table,
    unnamed: tuple[Collection[str], Collection[str]],
    reference: Reference,
    seed: int,
) -> dict[str, Any]:
    """What ``growth.json`` says; ``unnamed`` are items of this file, and of all, that have no name now."""
    appends = list(there.growth.get("appends", ()))
    new, ids = len(grown) - len(space), grown.semantic_ids
    fits = Fit(every["error"].to_numpy(), every["cosine"].to_numpy())
    drift = []
    for rows, without in zip((new, len(fits)), unnamed, strict=True):
        last = slice(-rows, None)
        fit = Fit(fits.error[last], fits.cosine[last])
        drift.append(drift_of(fit, ids.codes[last], ids.resolved[last], reference, seed, unnamed=len(without)))
    fullest = _fullest(ids)
    verdicts = [
        _verdict_json(about, one["items"], verdict_of(one, fullest))
        for about, one in zip(("new items", "all appended items"), drift, strict=True)
    ]
    return {
        "version of conrec": __version__,
        "grown_from": what_it_grows_from(run_folder),
        "sid_tables": [
            *(there.sid_tables or (hash_semantic_ids(space.item_ids, space.semantic_ids),)),
            hash_semantic_ids(grown.item_ids, ids),
        ],
        "items": len(grown),
        "appended": every.num_rows,
        "verdict": _deciding(*verdicts),
        "verdict_of_all": verdicts[1],
        "drift": drift[1],
        "unnamed": sorted(unnamed[1]),
        "fullest_first_code": fullest,
        "appends": [*appends, {"verdict": verdicts[0], "drift": drift[0]}],
    }


def _verdict_json(about: str, items: int, verdict: Verdict) -> dict[str, Any]:
    return {"state": verdict.state, "about": about, "items": items, "reason": verdict.reason}


def _deciding(new: dict[str, Any], every: dict[str, Any]) -> dict[str, Any]:
    """The verdict on the new items by themselves, or on all together: what is too little in each append adds up."""
    if "retrain" in (new["state"], every["state"]):
        return new if new["state"] == "retrain" else every
    return every if new["state"] == "too few to tell" else new


def _fullest(ids: SemanticIds) -> dict[str, int | None]:
    """The first code with the most items, and how many it can name; None where there is no end."""
    counts = np.bincount(ids.resolved[:, 0], minlength=ids.codebook_size)
    room = ids.codebook_size ** (LEVELS - 1) if ids.collisions == "nearest" else None
    return {"code": int(counts.argmax()), "items": int(counts.max()), "room": room}


def _write(folder: Path, items: pa.Table, grown: ItemSpace, every: pa.Table) -> None:
    """The files of a catalogue."""
    from conrec.items.trie import Trie  # noqa: PLC0415  (torch comes with an extra)
    from conrec.items.trie_file import save_trie  # noqa: PLC0415

    ids = grown.semantic_ids
    write_parquet(folder / ITEMS_FILE, items)
    write_semantic_ids(folder / SEMANTIC_IDS_FILE, grown.item_ids, ids)
    write_tensors(folder / REBUILT, {"rebuilt": grown.rebuilt})
    save_trie(folder / TRIE, Trie.of(ids))
    write_parquet(folder / APPENDED_FILE, every)


def _is_of_a_run(path: Path) -> bool:
    """Whether a file is an ``items.parquet`` as runs write it."""
    try:
        return bool(pq.read_schema(path).equals(ITEMS))
    except (pa.ArrowException, OSError):
        return False

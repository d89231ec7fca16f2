"""Which changes do semantic IDs withstand, on small, medium and large catalogues, and what does training decide of it?

    python -m benchmarks.studies.stability run SET [--json FILE] [--seeds 0 1 2] [--quantisers NAME ...]
    python -m benchmarks.studies.stability table benchmarks/results/stability-*.json

A random nine tenths of a catalogue are its training items. Each quantiser is trained on them and described by
`conrec.items.diagnosis.stability.describe_stability`; beside it stand the error of its rebuilt embeddings and their
neighbours, as `benchmarks/semantic_ids.py` counts them. Real catalogues are read from the folders that
`benchmarks.common.item_vectors` names, with the texts that a run would give their items. Everything runs on one
thread. The result is written after each model; what it holds already is not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from benchmarks.common.item_vectors import clusters, data_folder
from benchmarks.common.machine import machine
from benchmarks.common.rounding import rounded

from conrec.artefacts import read_json, write_json
from conrec.config import DataConfig, EncoderConfig, RqVaeConfig
from conrec.items.diagnosis.diagnostics import collisions, unit_rows
from conrec.items.diagnosis.neighbours import neighbour_hits, queries_of
from conrec.items.diagnosis.stability import describe_stability, in_other_words, under_noise
from conrec.items.encoders.embed import item_texts
from conrec.items.encoders.text import encode_texts
from conrec.items.quantisers.quantiser import Quantiser, train_quantiser
from conrec.logs.sources import load
from conrec.logs.sources.table import read_item_file
from conrec.seeds import generator
from conrec.settings.data import ItemColumns

TRAINING_SHARE = 0.9
CLUSTERS = 100_000
DIM = 64
LARGE: Mapping[str, Any] = {"epochs": 10, "batch_size": 1024, "latent_dim": DIM}
"""Settings of the made-up catalogue that differ from the defaults, those of the benchmark's million."""
QUANTISERS: Mapping[str, Mapping[str, Any]] = {
    "RQ-VAE": {},
    "RQ-VAE without noise": {"noise": 0.0},
    "residual k-means": {"method": "residual_kmeans"},
    "RQ-VAE, beam 1": {"beam": 1},
}
SEEDS: Mapping[str, tuple[int, ...]] = {
    "board-games": (0, 1, 2),
    "ml-100k": (0, 1, 2),
    "movietweetings": (0,),
    "clusters-100k": (0,),
}
"""Sets, smallest first, and their seeds where none are given."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is quantised.

    Attributes:
        embeddings: float32 [items, d].
        items: schema `conrec.logs.schema.ITEMS`; None where there are no texts.
        embed: from items to embeddings; None where there are no texts.
        settings: of the quantiser, where they differ from the defaults.
    """

    embeddings: np.ndarray
    items: pa.Table | None
    embed: Callable[[pa.Table], np.ndarray] | None
    settings: Mapping[str, Any]


class Encoder:
    """The default encoder of texts; a text that was encoded before is looked up."""

    def __init__(self) -> None:
        self.known: dict[str, np.ndarray] = {}

    def __call__(self, items: pa.Table) -> np.ndarray:
        texts = item_texts(items)
        new = sorted(set(texts) - self.known.keys())
        if new:
            self.known.update(zip(new, encode_texts(new, EncoderConfig()), strict=True))
        return np.stack([self.known[text] for text in texts])


def read_catalogue(name: str) -> Catalogue:
    """The catalogue of that name.

    Raises:
        SystemExit: its files are not here.
    """
    if name == "clusters-100k":
        return Catalogue(clusters(CLUSTERS, DIM, 0), None, None, LARGE)
    items, encoder = _read_items(name), Encoder()
    return Catalogue(encoder(items), items, encoder, {})


def _read_items(name: str) -> pa.Table:
    if name == "ml-100k":
        return load(DataConfig(source="ml-100k")).items
    folder = data_folder("boardgames" if name == "board-games" else name)
    if folder is None:
        raise SystemExit(f"the files of {name} are not here: set CONREC_BENCHMARK_DATA to the folder that has them")
    if name == "movietweetings":
        return load(DataConfig(source="movietweetings", folder=folder)).items
    columns = ItemColumns(category="categories", description="description")
    return read_item_file(folder / "games.parquet", DataConfig(source="table", item_columns=columns))[0]


def study(name: str, catalogue: Catalogue, quantisers: Sequence[str], seeds: Sequence[int], results: Path) -> None:
    """Measure every quantiser with every seed, except those whose figures are there, and write after each.

    Raises:
        SystemExit: the file holds another set.
    """
    n, dim = catalogue.embeddings.shape
    found: dict[str, Any] = {"study": f"stability/{name}", "items": n, "features": dim, "quantisers": {}}
    if results.is_file():
        found = read_json(results)
        if found.get("study") != f"stability/{name}":
            raise SystemExit(f"{results} holds {found.get('study')!r}, not 'stability/{name}': give another --json")
    for seed in seeds:
        for quantiser in quantisers:
            settings = {**catalogue.settings, **QUANTISERS[quantiser]}
            own = found["quantisers"].setdefault(quantiser, {"settings": settings, "seeds": {}})
            if str(seed) in own["seeds"]:
                continue
            begin = time.perf_counter()
            own["seeds"][str(seed)] = rounded(measure(catalogue, RqVaeConfig(**settings), seed))
            found["machine"] = machine("cpu")
            write_json(results, found)
            print(f"{name}, {quantiser}, seed {seed}: {time.perf_counter() - begin:.0f} s", flush=True)


def measure(catalogue: Catalogue, config: RqVaeConfig, seed: int) -> dict[str, Any]:
    """What one quantiser keeps of the catalogue (`fit`), and under which changes its codes stay (`stability`).

    Most items are training items, and an encoder may hold those better than others; so ``not_trained_on`` has
    noise and paraphrases of the others alone.
    """
    rows = catalogue.embeddings
    training = np.zeros(len(rows), dtype=np.bool_)
    order = generator(seed, "stability study", "training items").permutation(len(rows))
    training[order[: round(TRAINING_SHARE * len(rows))]] = True
    begin = time.perf_counter()
    model = train_quantiser(rows[training], config, seed)
    seconds = time.perf_counter() - begin
    items = pa.table({}) if catalogue.items is None else catalogue.items
    return {
        "seconds_of_training": seconds,
        "noise_in_training": model.config.noise if config.method == "rqvae" else None,
        "fit": fit(model, rows, training, seed),
        "not_trained_on": other_items(model, catalogue, ~training, seed),
        "stability": describe_stability(model, rows, training, items, config, seed, catalogue.embed),
    }


def other_items(model: Quantiser, catalogue: Catalogue, chosen: np.ndarray, seed: int) -> dict[str, Any]:
    """Noise and paraphrases, as `describe_stability` has them, of the chosen items alone."""
    rows, words = catalogue.embeddings[chosen], None
    if catalogue.items is not None and catalogue.embed is not None:
        words = in_other_words(model, rows, catalogue.items.filter(pa.array(chosen)), catalogue.embed, seed)
    return {"noise": under_noise(model, rows, seed), "paraphrase": words}


def fit(model: Quantiser, rows: np.ndarray, training: np.ndarray, seed: int) -> dict[str, Any]:
    """Squared error as a share of the variance, and neighbour hit rate, of all items and of those not trained on."""
    centred = rows - model.mean.numpy()
    codes = model.encode(rows)
    rebuilt = model.rebuild(codes)
    queries = queries_of(len(rows), seed)
    hits = neighbour_hits(unit_rows(centred), [unit_rows(rebuilt)], queries)[0]
    errors = np.square(centred - rebuilt).sum(axis=1, dtype=np.float64)
    lengths = np.square(centred).sum(axis=1, dtype=np.float64)
    held_out = ~training
    return {
        "error": float(errors.sum() / lengths.sum()),
        "error_held_out": float(errors[held_out].sum() / lengths[held_out].sum()),
        "neighbours": float(hits.mean()),
        "neighbours_held_out": float(hits[held_out[queries]].mean()),
        "collision_rate": collisions(codes)["rate"],
    }


Cells = dict[str, list[float | None] | None]
"""A line of a table: column to the figures that stand there side by side; None where there are none."""
NEW = ", not trained on"
"""Behind the name of a column: of the items that the quantiser was not trained on."""


def mean_of(lines: Sequence[Cells]) -> Cells:
    """The mean over seeds, figure by figure; a figure that one seed lacks is left out."""
    mean: Cells = {}
    for column in lines[0]:
        figures = [line[column] for line in lines]
        if any(one is None for one in figures):
            mean[column] = None
            continue
        mean[column] = [None if None in own else statistics.fmean(own) for own in zip(*figures, strict=True)]
    return mean


def _fit_line(one: Mapping[str, Any]) -> Cells:
    found = one["fit"]
    return {
        "noise in training": None if one["noise_in_training"] is None else [one["noise_in_training"]],
        "error": [found["error"]],
        f"error{NEW}": [found["error_held_out"]],
        "neighbours": [found["neighbours"]],
        f"neighbours{NEW}": [found["neighbours_held_out"]],
        "items that collide": [found["collision_rate"]],
    }


def _noise_line(one: Mapping[str, Any]) -> Cells:
    cells: Cells = {}
    for source, of in ((one["stability"], ""), (one["not_trained_on"], NEW)):
        cells |= {f"{noise['relative_norm']:.0%}{of}": noise["kept"] for noise in source["noise"]}
    return cells


def _words_line(one: Mapping[str, Any]) -> Cells:
    return {words["rule"]: words["kept"] for words in one["stability"]["paraphrase"] or ()}


def _new_words_line(one: Mapping[str, Any]) -> Cells:
    return {words["rule"]: words["kept"] for words in one["not_trained_on"]["paraphrase"] or ()}


def _cosine_line(one: Mapping[str, Any]) -> Cells:
    found = one["stability"]["paraphrase"] or ()
    return {words["rule"]: None if words["cosine"] is None else [words["cosine"]] for words in found}


def _again(found: Mapping[str, Any] | None) -> Cells:
    columns = ("within matched parents", "by chance", "matched globally", "pairs that stay", "adjusted Rand index")
    if found is None:
        return dict.fromkeys(columns)
    figures = (
        found["within_parents"],
        found["chance"],
        found["globally"],
        *([pair[key] for pair in found["pairs"]] for key in ("kept", "adjusted_rand")),
    )
    return dict(zip(columns, figures, strict=True))


def _another_seed_line(one: Mapping[str, Any]) -> Cells:
    return _again(one["stability"]["retrained"])


def _growth_line(one: Mapping[str, Any]) -> Cells:
    appended = one["stability"]["appended"]
    return {"appended": None if appended is None else appended["kept"], **_again(one["stability"]["fewer"])}


TABLES: Mapping[str, Callable[[Mapping[str, Any]], Cells]] = {
    "What the codes keep": _fit_line,
    "Noise on the embedding": _noise_line,
    "Other words": _words_line,
    f"Other words{NEW}": _new_words_line,
    "Training again with another seed": _another_seed_line,
    "A tenth more items": _growth_line,
}
"""By the question."""


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one table a question, sets and quantisers one below the other, means over seeds."""
    places = {name: place for place, name in enumerate(SEEDS)}
    ordered = sorted(results, key=lambda one: places[one["study"].partition("/")[2]])
    parts: list[str] = []
    for title, line_of in TABLES.items():
        lines = list(_lines(ordered, line_of))
        columns = next((list(cells) for *_, cells in lines if cells), [])
        parts += ["", f"**{title}**", "", f"| catalogue | quantiser | {' | '.join(columns)} |"]
        parts.append("|---" * (2 + len(columns)) + "|")
        parts += [
            f"| {name} | {quantiser} | {' | '.join(_cell(cells[column]) for column in columns)} |"
            for name, quantiser, cells in lines
            if cells
        ]
    return "\n".join(parts)


def _lines(
    results: Sequence[Mapping[str, Any]], line_of: Callable[[Mapping[str, Any]], Cells]
) -> Iterator[tuple[str, str, Cells]]:
    for result in results:
        name, first = result["study"].partition("/")[2], True
        for quantiser, own in result["quantisers"].items():
            seeds = list(own["seeds"].values())
            if not seeds:
                continue
            if first and line_of is _words_line:
                yield name, "(cosine of the two texts)", mean_of([_cosine_line(one) for one in seeds])
            yield name, quantiser, mean_of([line_of(one) for one in seeds])
            first = False


def _cell(figures: Sequence[float | None] | None) -> str:
    if figures is None:
        return "–"
    return " ".join("–" if one is None else f"{one:.2f}".replace("-", "−") for one in figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("set", choices=SEEDS)
    run.add_argument("--seeds", type=int, nargs="+")
    run.add_argument("--quantisers", nargs="+", choices=QUANTISERS, default=list(QUANTISERS), metavar="NAME")
    run.add_argument("--json", type=Path, help="where the result goes; benchmarks/results/stability-SET.json")
    shown = commands.add_parser("table")
    shown.add_argument("files", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "table":
        print(tables([json.loads(file.read_text(encoding="utf-8")) for file in given.files]))
        return
    torch.set_num_threads(1)
    results = given.json or Path("benchmarks/results") / f"stability-{given.set}.json"
    study(given.set, read_catalogue(given.set), given.quantisers, given.seeds or SEEDS[given.set], results)


if __name__ == "__main__":
    main()

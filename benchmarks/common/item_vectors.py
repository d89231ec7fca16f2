"""Embeddings of real catalogues and of a made-up one, as the benchmark of semantic IDs quantises them.

Real ones are read from the folder that CONREC_BENCHMARK_DATA names, with the subfolders ``boardgames`` (games.parquet:
title, categories, description), ``movietweetings`` (movies.dat, ratings.dat) and ``movie-posters``; MovieLens-100K
comes from where the source ``ml-100k`` finds it. The image model of the posters is CONREC_BENCHMARK_CLIP, for instance
a folder that `benchmarks.common.small_clip` wrote.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from conrec.config import DataConfig, EncoderConfig, ImageConfig
from conrec.items.encoders.embed import embed_items, item_texts
from conrec.items.encoders.text import encode_texts
from conrec.logs.sources import load

from .posters import write_table  # relative: scripts and `python -m benchmarks…` call this package by two names

__all__ = ["CLIP", "abstracts", "board_games", "clusters", "data_folder", "movietweetings", "posters"]

CLIP = "CONREC_BENCHMARK_CLIP"
"""Environment variable with the name or folder of an image model."""


def data_folder(name: str) -> Path | None:
    """Where one real catalogue lies, None where it is not here."""
    folder = os.environ.get("CONREC_BENCHMARK_DATA")
    return Path(folder) / name if folder and (Path(folder) / name).is_dir() else None


def board_games(folder: Path) -> np.ndarray:
    """Titles, categories and descriptions of 901 board games, float32 [901, 384]."""
    table = pq.read_table(folder / "games.parquet")
    texts = []
    for row in table.to_pylist():
        named = row["categories"] or ""
        texts.append(f"{row['title']}. {named}. {row['description'] or ''}")
    return encode_texts(texts, EncoderConfig())


def movietweetings(folder: Path) -> np.ndarray:
    """Titles and genres of 12,611 films, float32 [12611, 384]."""
    loaded = load(DataConfig(source="movietweetings", folder=folder))
    return encode_texts(item_texts(loaded.items), EncoderConfig())


def abstracts(folder: Path) -> np.ndarray:
    """Encyclopaedia abstracts of MovieLens-1M's films, float32 [about 3,000, 384]; no setting was chosen on them."""
    texts = json.loads((folder / "abstracts.json").read_text(encoding="utf-8"))
    return encode_texts([texts[name] for name in sorted(texts)], EncoderConfig())


def posters(folder: Path, clip: str) -> np.ndarray:
    """Titles, genres and posters of MovieLens-100K, fused with equal weights, float32 [1682, d]."""
    with tempfile.TemporaryDirectory() as made:
        write_table(load(DataConfig(source="ml-100k")), folder, Path(made))
        items = pq.read_table(Path(made) / "items.parquet")
        config = EncoderConfig(image=ImageConfig(model=clip))
        known = np.ones(items.num_rows, dtype=np.bool_)
        return embed_items(items, known, config, {}, device="cpu", cache=Path(made) / "vectors").embeddings


def clusters(n: int, dim: int, seed: int) -> np.ndarray:
    """A made-up catalogue: groups within groups within groups, float32 [n, dim], rows in random order.

    Rows are the sum of a draw of each of three levels of groups (of 64, 4,096 and 65,536, sizes falling with rank) and
    one of their own, with standard deviations 1, 0.7, 0.5 and 0.5.
    """
    chance = np.random.default_rng(seed)
    rows = np.zeros((n, dim), dtype=np.float32)
    group = np.zeros(n, dtype=np.int64)
    for groups, spread in ((64, 1.0), (64, 0.7), (16, 0.5)):
        share = np.arange(1, groups + 1) ** -0.5
        group = group * groups + chance.choice(groups, n, p=share / share.sum())
        centres = chance.normal(size=(int(group.max()) + 1, dim)).astype(np.float32)
        rows += np.float32(spread) * centres[group]
    for begin in range(0, n, 65_536):
        rows[begin : begin + 65_536] += 0.5 * chance.normal(size=rows[begin : begin + 65_536].shape).astype(np.float32)
    return rows

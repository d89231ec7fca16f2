"""Codes at equal bits: reconstruction error and neighbours of our RQ-VAE against three quantisers that people use.

Each quantiser is fitted on nine tenths of a catalogue and encodes all of it with 3 codes of as many bits. Peers:
vector-quantize-pytorch's ResidualVQ, FAISS's ResidualQuantizer with beams of 1, 5 (its default) and 16, and residual
k-means. Claims, per catalogue: `error_over_best_peer`, squared error of all items by that of the peer with the lowest
one; `neighbours_over_best_peer`, share of the 10 nearest items by embedding that are among the 10 nearest by rebuilt
embedding, by that of the peer with the highest; the same on the tenth that nobody was fitted on (`/held out`);
`level_1_use`, share of first codes that have an item; `collisions_after`, items that share a semantic ID once they are
resolved. And `encode_share_of_matmul`: time of the bare matrix products by that of encoding, at 3 x 8192 codes.

Catalogues: see `common.item_vectors`; those whose files are not here are left out with a note.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from common import item_vectors
from common.harness import Report, Spread, arguments, take_turns
from common.machine import machine
from common.memory import Peak, alone
from common.quantisers import PEERS, same_threads
from conrec.config import RqVaeConfig, SemanticIdsConfig
from conrec.items.diagnosis.diagnostics import collisions, unit_rows
from conrec.items.diagnosis.neighbours import neighbour_hits, queries_of
from conrec.items.naming.collisions import name_items
from conrec.items.quantisers.base import ROWS
from conrec.items.quantisers.quantiser import Quantiser, train_quantiser
from conrec.items.quantisers.rqvae import RqVae
from conrec.items.quantisers.sizes import codebook_size_for

PARTS = ("board-games", "movietweetings", "ml-100k-posters", "film-abstracts", "million", "encode", "memory")
OURS = "RQ-VAE"
MILLION = 1_000_000
AT_ONCE = 1 << 20
"""Distances of one product: what was fastest of 2^18 to 2^22."""
DIM = 64
LARGE = RqVaeConfig(epochs=14, batch_size=1024, latent_dim=DIM, noise=0.0, beam=10)
"""Ours on a million rows; chosen on 400,000 rows of another draw of such a catalogue (docs/semantic_ids.md)."""
SLOW = ("FAISS beam 16", "FAISS beam 5 refined", "FAISS beam 16 refined")
"""Peers that are left out on a million rows, for their time."""
LARGE_ROWS_FITTED = 262_144
"""Rows of the million that everybody is fitted on."""


def catalogues(quick: bool) -> dict[str, Callable[[], np.ndarray]]:
    """Those that can be read here."""
    found: dict[str, Callable[[], np.ndarray]] = {}
    games, films, faces = (item_vectors.data_folder(one) for one in ("boardgames", "movietweetings", "movie-posters"))
    if games is not None:
        found["board-games"] = lambda: item_vectors.board_games(games)
    if films is not None:
        found["movietweetings"] = lambda: item_vectors.movietweetings(films)
    if faces is not None and (clip := os.environ.get(item_vectors.CLIP)):
        found["ml-100k-posters"] = lambda: item_vectors.posters(faces, clip)
    if faces is not None:
        found["film-abstracts"] = lambda: item_vectors.abstracts(faces)
    found["million"] = lambda: item_vectors.clusters(10_000 if quick else MILLION, DIM, 0)
    return found


def compare(report: Report, name: str, rows: np.ndarray, quick: bool) -> None:
    """All quantisers on one catalogue."""
    large = len(rows) == MILLION
    seeds = range(1 if quick or large else 3)
    size = codebook_size_for(len(rows))
    report.heading(f"{name}: {len(rows)} items of {rows.shape[1]} features, 3 x {size} codes, {len(seeds)} seeds")
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in seeds:
        chance = np.random.default_rng(seed).permutation(len(rows))
        fitted = np.zeros(len(rows), dtype=np.bool_)
        fitted[chance[: LARGE_ROWS_FITTED if large else int(0.9 * len(rows))]] = True
        centred = rows - rows[fitted].mean(axis=0)
        queries = queries_of(len(rows), seed)
        rebuilt = {}
        for peer, fit in PEERS.items():
            if (quick and peer == "ResidualVQ") or (large and peer in SLOW):
                continue
            begin = time.perf_counter()
            rebuilt[peer] = fit(centred, fitted, size, seed)
            report.say(f"         {peer} seed {seed}: {time.perf_counter() - begin:.1f} s")
        begin = time.perf_counter()
        config = (LARGE if large else RqVaeConfig()).model_copy(update={"codebook_size": size})
        if quick:
            config = config.model_copy(update={"epochs": 20})
        model = train_quantiser(rows[fitted], config, seed)
        codes = model.encode(rows)
        rebuilt[OURS] = model.rebuild(codes)
        report.say(f"         {OURS} seed {seed}: {time.perf_counter() - begin:.1f} s")
        hits = neighbour_hits(unit_rows(centred), [unit_rows(one) for one in rebuilt.values()], queries)
        for (peer, own), hit in zip(rebuilt.items(), hits, strict=True):
            errors, lengths = (
                np.square(centred - own).sum(1, dtype=np.float64),
                np.square(centred).sum(1, dtype=np.float64),
            )
            apart = ~fitted[queries]
            error, unseen = (errors[rows].sum() / lengths[rows].sum() for rows in (slice(None), ~fitted))
            found.setdefault(peer, []).append((error, hit.mean(), unseen, hit[apart].mean()))
        if seed == 0:
            named(report, name, model, rows, codes, fitted)
    for peer, figures_of_seeds in found.items():
        for place, what in enumerate(("error", "neighbours", "error/held out", "neighbours/held out")):
            report.figure(f"{what}/{name}/{peer}", Spread.of([one[place] for one in figures_of_seeds]))
    for place, what in ((0, ""), (2, "/held out")):
        middle = {peer: [statistics.median(one[at] for one in own) for at in range(4)] for peer, own in found.items()}
        ours = middle.pop(OURS)
        report.claim(
            f"error_over_best_peer/{name}{what}", ours[place] / min(one[place] for one in middle.values()),
            runs=len(seeds), at_most=1,
        )  # fmt: skip
        report.claim(
            f"neighbours_over_best_peer/{name}{what}", ours[place + 1] / max(one[place + 1] for one in middle.values()),
            runs=len(seeds), at_least=1,
        )  # fmt: skip


def named(report: Report, name: str, model: Quantiser, rows: np.ndarray, codes: np.ndarray, fitted: np.ndarray) -> None:
    """Use of the codes, and the names that items get."""
    size = model.codebooks.shape[1]
    report.claim(f"level_1_use/{name}", len(np.unique(codes[:, 0])) / size, runs=1, at_least=0.95)
    before = collisions(codes)
    begin = time.perf_counter()
    ids = name_items(codes, model.latents(rows), model.codebooks.numpy(), fitted, SemanticIdsConfig())
    report.figure(f"naming_seconds/{name}", time.perf_counter() - begin)
    report.figure(f"collision_rate_before/{name}", before["rate"])
    report.figure(f"largest_bucket_before/{name}", before["largest"])
    report.claim(f"collisions_after/{name}", collisions(ids.resolved)["items_sharing"], runs=1, at_most=0)


def encoding(report: Report, quick: bool) -> None:
    """How much of the time of encoding goes into the matrix products that it needs."""
    for size in (1024,) if quick else (8192, 1024, 128):
        n = 2048 if quick else 32_768 if size < 8192 else 8192
        dim = 384
        config = RqVaeConfig(codebook_size=size)
        model = RqVae(dim, config, torch.Generator().manual_seed(0))
        with torch.no_grad():
            for weights in (*model.parameters(), model.codebooks):
                weights.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
        rows = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
        compared = {"encode": lambda m=model, r=rows: m.encode(r)}
        for kind, width in (("products", config.beam), ("greedy products", 1)):
            compared[kind] = Products(model, rows, width).run
        turns = take_turns(compared, 2 if quick else 7)
        name = "encode_share_of_matmul" + ("" if size == 8192 or quick else f"/{size} codes")
        share = turns.ratio("products", "encode")
        report.claim(name, share.median, runs=share.repeats, at_least=0.6)
        report.figure(f"{name}/of a greedy walk's products", turns.ratio("greedy products", "encode"))
        report.figure(f"{name}/rows_per_second", n / turns.spread("encode").median)


class Products:
    """The matrix products of encoding and nothing else: results into buffers that are there, operands ready.

    The encoder's layers; the distances of all rows to the first codewords, and those of the beam's prefixes to the
    codewords of the deeper levels (a greedy walk has one prefix; that ours has five is our choice).
    """

    def __init__(self, model: RqVae, rows: np.ndarray, width: int) -> None:
        self.tables = [codebook.T.contiguous() for codebook in model.codebooks]
        self.into = model.into.weight.detach().T
        self.layers = [one.weight.detach().T for one in model.encoder if isinstance(one, torch.nn.Linear)]
        self.x = list(torch.from_numpy(rows).split(ROWS))
        latent, most = model.codebooks.shape[2], len(self.x[0])
        self.points = [torch.randn(most * (1 if level == 0 else width), latent) for level in range(len(self.tables))]
        self.out = [torch.empty(most, one.shape[1]) for one in (self.into, *self.layers)]
        self.part = max(1, AT_ONCE // model.codebooks.shape[1])
        self.distances = torch.empty(self.part, model.codebooks.shape[1])

    def run(self) -> None:
        """All of them once."""
        for own in self.x:
            n = len(own)
            torch.mm(own, self.into, out=self.out[0][:n])
            hidden = own
            for weight, out in zip(self.layers, self.out[1:], strict=True):
                hidden = torch.mm(hidden, weight, out=out[:n])
            for table, points in zip(self.tables, self.points, strict=True):
                for some in points[: n * (len(points) // len(self.points[0]))].split(self.part):
                    torch.mm(some, table, out=self.distances[: len(some)])


def peak_memory(threads: int, n: int) -> float:
    """MiB that fitting (on `LARGE_ROWS_FITTED` rows), encoding, naming and rebuilding takes beyond the embeddings."""
    torch.set_num_threads(threads)
    rows = item_vectors.clusters(n, DIM, 0)
    peak = Peak("cpu")
    size = codebook_size_for(n)
    fitted = np.zeros(n, dtype=np.bool_)
    fitted[: min(n, LARGE_ROWS_FITTED)] = True
    model = train_quantiser(rows[fitted], LARGE.model_copy(update={"codebook_size": size, "epochs": 1}), 0)
    codes = model.encode(rows)
    name_items(codes, model.latents(rows), model.codebooks.numpy(), fitted, SemanticIdsConfig())
    model.rebuild(codes)
    return peak.mebibytes()


def main() -> None:
    given = arguments(__doc__, PARTS)
    same_threads()
    report = Report("semantic_ids", given.quick)
    readable = catalogues(given.quick)
    for name in PARTS[:5]:
        if not given.wants(name):
            continue
        if name not in readable:
            report.note(f"{name} is left out: its files are not here (CONREC_BENCHMARK_DATA, {item_vectors.CLIP})")
        else:
            rows = readable[name]()
            compare(report, name, rows[:1000] if given.quick and name != "million" else rows, given.quick)
    if given.wants("encode"):
        report.heading("encoding")
        encoding(report, given.quick)
    if given.wants("memory"):
        report.heading("memory")
        n = 50_000 if given.quick else MILLION
        used = alone(peak_memory, n)
        report.figure("peak_mebibytes_beyond_embeddings", used)
        report.figure("embeddings_mebibytes", n * DIM * 4 / 2**20)
    report.runs = max((one.runs for one in report.claims), default=0)
    report.finish(machine("cpu"), given.json)


if __name__ == "__main__":
    main()

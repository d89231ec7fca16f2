"""The quantisers that ours is measured against, each fitted on the same rows with as many codes a level.

Each returns the rows rebuilt (centred), whatever its codes are called; all of them spend levels × log2(codebook) bits
an item. Settings are those that their documentation recommends; where a setting decides, several are peers.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping

import numpy as np
import torch

__all__ = ["FAISS_BEAMS", "PEERS", "Fitted", "residual_kmeans", "same_threads"]

LEVELS = 3
FAISS_BEAMS = (1, 5, 16)
"""Beams of FAISS's ResidualQuantizer, in training and encoding; 5 is its default."""
RESIDUAL_VQ_STEPS = 6000
"""Steps of ResidualVQ, at most `RESIDUAL_VQ_EPOCHS` passes."""
RESIDUAL_VQ_EPOCHS = 100

Fitted = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""From the rows (centred by the mean of those that are fitted on), a mark of those, the codebook size and a seed to
all rows rebuilt."""


def same_threads() -> None:
    """Let FAISS have as many threads as PyTorch."""
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(torch.get_num_threads())


def faiss_residual(beam: int, *, refined: bool = False) -> Fitted:
    """FAISS's ResidualQuantizer: k-means with progressive dimensions, beams in training and in encoding.

    ``refined``: all codebooks are then fitted together to the codes (``Train_refine_codebook``).
    """

    def fit(rows: np.ndarray, fitted: np.ndarray, size: int, seed: int) -> np.ndarray:
        import faiss  # noqa: PLC0415 - a peer

        quantiser = faiss.ResidualQuantizer(rows.shape[1], LEVELS, int(np.log2(size)))
        quantiser.max_beam_size = beam
        quantiser.cp.seed = 1234 + seed
        if refined:
            quantiser.train_type |= faiss.ResidualQuantizer.Train_refine_codebook
        quantiser.max_mem_distances = 1 << 30
        quantiser.train(np.ascontiguousarray(rows[fitted]))
        # In parts: a beam over a million rows at once takes more memory than this machine has.
        parts = [np.ascontiguousarray(rows[begin : begin + 65_536]) for begin in range(0, len(rows), 65_536)]
        return np.concatenate([quantiser.decode(quantiser.compute_codes(part)) for part in parts])

    return fit


def residual_kmeans(rows: np.ndarray, fitted: np.ndarray, size: int, seed: int) -> np.ndarray:
    """K-means of each level on what is left over (FAISS's k-means from random rows), nearest codewords."""
    import faiss  # noqa: PLC0415

    left, rebuilt = rows.copy(), np.zeros_like(rows)
    for level in range(LEVELS):
        means = faiss.Kmeans(
            rows.shape[1], size, niter=25, seed=1234 + 10 * seed + level, min_points_per_centroid=1, verbose=False
        )
        means.train(np.ascontiguousarray(left[fitted]))
        chosen = means.centroids[means.index.search(np.ascontiguousarray(left), 1)[1][:, 0]]
        left -= chosen
        rebuilt += chosen
    return rebuilt


def residual_vq(rows: np.ndarray, fitted: np.ndarray, size: int, seed: int) -> np.ndarray:
    """vector-quantize-pytorch's ResidualVQ: k-means start, moving averages, dead codes replaced."""
    from vector_quantize_pytorch import ResidualVQ  # noqa: PLC0415

    torch.manual_seed(seed)
    # Its thresholds are made for features of unit variance.
    scale = float(rows[fitted].std())
    x = torch.from_numpy(rows / scale)
    known = x[torch.from_numpy(fitted)]
    with contextlib.redirect_stdout(io.StringIO()):
        quantiser = ResidualVQ(
            dim=rows.shape[1],
            num_quantizers=LEVELS,
            codebook_size=size,
            kmeans_init=True,
            kmeans_iters=20,
            decay=0.95,
            threshold_ema_dead_code=1,
        )
    quantiser.train()
    batch = max(256, 2 * size)
    with torch.no_grad():
        quantiser(
            known[: 64 * size].unsqueeze(0)
        )  # the start: k-means of as many rows as FAISS's progressive steps see
        epochs = min(RESIDUAL_VQ_EPOCHS, -(-RESIDUAL_VQ_STEPS * batch // len(known)))
        for _ in range(epochs):
            for own in torch.randperm(len(known)).split(batch):
                quantiser(known[own].unsqueeze(0))
        quantiser.eval()
        rebuilt = [quantiser(part.unsqueeze(0))[0][0] for part in x.split(65_536)]
    return np.asarray(torch.cat(rebuilt)) * scale


PEERS: Mapping[str, Fitted] = {
    "residual k-means": residual_kmeans,
    **{f"FAISS beam {beam}": faiss_residual(beam) for beam in FAISS_BEAMS},
    **{f"FAISS beam {beam} refined": faiss_residual(beam, refined=True) for beam in FAISS_BEAMS[1:]},
    "ResidualVQ": residual_vq,
}
"""By the name that tables show."""

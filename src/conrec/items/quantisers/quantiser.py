"""Training and reading of a quantiser, whichever the configuration asks for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from conrec.arrays import Array
from conrec.artefacts import read_tensor_metadata, read_tensors
from conrec.config import RqVaeConfig
from conrec.errors import ArtefactError, DataError
from conrec.items.quantisers.base import METADATA_KEY, ROWS, Quantiser
from conrec.items.quantisers.residual_kmeans import ResidualKmeans
from conrec.items.quantisers.rqvae import RqVae
from conrec.items.quantisers.sizes import resolve_codebook_size
from conrec.items.quantisers.training import fit_rqvae
from conrec.seeds import derive

__all__ = ["Quantiser", "check_embeddings", "load_quantiser", "train_quantiser"]


def train_quantiser(embeddings: Float[Array, "n d"], config: RqVaeConfig, seed: int, device: str = "cpu") -> Quantiser:
    """Train on all rows given; apply to any rows with `Quantiser.encode`.

    The same embeddings, configuration, seed, device and number of threads give the same bytes; torch's global
    generator is neither read nor moved.

    Args:
        embeddings: rows to train on; scaled inside.
        config: ``method`` says which quantiser; where ``codebook_size`` is None it follows `codebook_size_for`, lowered
            to the power of two that the rows can fill.
        seed: of weights, k-means, noise and batches.
        device: "cpu" or "cuda".

    Raises:
        DataError: no rows, values that are not finite, or a training that diverged.
        ConfigError: fewer rows than ``codebook_size`` (the k-means start needs one row a code).
    """
    check_embeddings(embeddings)
    config = config.model_copy(update={"codebook_size": resolve_codebook_size(config, len(embeddings))})
    generator = torch.Generator().manual_seed(derive(seed, "rqvae"))
    dim = embeddings.shape[1]
    model = RqVae(dim, config, generator) if config.method == "rqvae" else ResidualKmeans(dim, config)
    mean = embeddings.mean(axis=0, dtype=np.float64)
    parts = [embeddings[begin : begin + ROWS] for begin in range(0, len(embeddings), ROWS)]
    spread = math.sqrt(sum(float(np.square(part - mean).sum()) for part in parts) / embeddings.size)
    model.mean.copy_(torch.from_numpy(mean))
    # Rows that are all alike stay as they are: zeros.
    model.scale.fill_(spread if spread > 1e-8 else 1.0)
    model.to(device)
    x = model.standardise(embeddings)
    if isinstance(model, RqVae):
        fit_rqvae(model, x, generator)
    else:
        model.fit(x, generator)
    return model.eval()


def load_quantiser(path: Path) -> Quantiser:
    """Read what `Quantiser.save` wrote, onto the CPU.

    Raises:
        ArtefactError: the file is missing, damaged or holds something else.
    """
    tensors = read_tensors(path)
    metadata = read_tensor_metadata(path)
    try:
        config = RqVaeConfig.model_validate_json(metadata[METADATA_KEY])
        dim = len(tensors["mean"])
        model = RqVae(dim, config) if config.method == "rqvae" else ResidualKmeans(dim, config)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ArtefactError(f"does not hold a quantiser ({reason})", where=str(path)) from None
    return model.eval()


def check_embeddings(embeddings: Float[Array, "n d"]) -> None:
    """Raise a DataError where there are no rows, or one holds a value that is not finite."""
    if embeddings.size == 0:
        raise DataError(f"embeddings of shape {embeddings.shape}", where="quantiser", expected="at least one row")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise DataError(
            f"the embedding of row {broken[0]} is not finite ({len(broken)} such rows)",
            where="quantiser",
            expected="finite numbers",
            mend="Look at that item's text and at encoder.model.",
        )

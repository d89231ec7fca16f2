"""Training of the RQ-VAE: k-means start, one optimiser step and one step of the averages a batch, dead-code restart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conrec.arrays import Array
from conrec.config import RqVaeConfig
from conrec.errors import ConfigError, DataError
from conrec.items.diagnostics import perplexity
from conrec.items.quantisers.codebooks import MovingCodebook, kmeans, nearest
from conrec.items.quantisers.rqvae import RqVae, quantise, rqvae_loss
from conrec.progress import meter
from conrec.seeds import derive

__all__ = ["check_embeddings", "codebook_size_for", "larger_codebook", "resolve_codebook_size", "train_rqvae"]

_CURVE_POINTS = 100
LARGEST_CODEBOOK = 8192
"""Codes per level of the paper; no codebook that is sized here has more."""


def codebook_size_for(n_items: int) -> int:
    """Codes per level for so many items: the power of two at or above the square root, from 16 to 8192."""
    return min(max(1 << (math.isqrt(max(n_items, 1) - 1)).bit_length(), 16), LARGEST_CODEBOOK)


def train_rqvae(embeddings: Float[Array, "n d"], config: RqVaeConfig, seed: int, device: str = "cpu") -> RqVae:
    """Train on all rows given; apply to any rows with `RqVae.encode`.

    The same embeddings, configuration, seed and device give the same bytes; torch's global generator is neither
    read nor moved.

    Args:
        embeddings: rows to train on; scaled inside.
        config: where ``codebook_size`` is None it follows `codebook_size_for`, lowered to the power of two that
            the rows can fill.
        seed: of weights, k-means and batches.
        device: "cpu" or "cuda".

    Raises:
        DataError: no rows, or values that are not finite.
        ConfigError: fewer rows than ``codebook_size`` (the k-means start needs one row a code).
    """
    check_embeddings(embeddings)
    config = config.model_copy(update={"codebook_size": resolve_codebook_size(config, len(embeddings))})
    generator = torch.Generator().manual_seed(derive(seed, "rqvae"))
    model = RqVae(embeddings.shape[1], config, generator)
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    spread = math.sqrt(float(np.square(centred).mean()))
    model.mean.copy_(torch.from_numpy(embeddings.mean(axis=0, dtype=np.float64)))
    # Rows that are all alike stay as they are: zeros.
    model.scale.fill_(spread if spread > 1e-8 else 1.0)
    model.to(device)
    with _one_thread():
        _Training(model, model.standardise(embeddings), generator).run()
    return model.eval()


def check_embeddings(embeddings: Float[Array, "n d"]) -> None:
    """Raise a DataError where there are no rows, or one holds a value that is not finite."""
    if embeddings.size == 0:
        raise DataError(f"embeddings of shape {embeddings.shape}", where="RQ-VAE", expected="at least one row")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise DataError(
            f"the embedding of row {broken[0]} is not finite ({len(broken)} such rows)",
            where="RQ-VAE",
            expected="finite numbers",
            mend="Look at that item's text and at encoder.model.",
        )


def resolve_codebook_size(config: RqVaeConfig, n_rows: int) -> int:
    """Codes per level: as configured, else by `codebook_size_for`, lowered to what ``n_rows`` rows can start.

    Args:
        config: the section.
        n_rows: rows that are trained on, the items of the training period.

    Raises:
        ConfigError: the configured size exceeds ``n_rows``.
    """
    if config.codebook_size is None:
        return min(codebook_size_for(n_rows), 1 << (n_rows.bit_length() - 1))
    if config.codebook_size > n_rows:
        raise ConfigError(
            f"{config.codebook_size} codes a level for {n_rows} items of the training period",
            where="rqvae.codebook_size",
            expected=f"at most {n_rows}, since the k-means start needs one item a code",
            mend="Lower it, or leave it out: it then follows the number of those items.",
        )
    return config.codebook_size


def larger_codebook(size: int, n_rows: int) -> int | None:
    """Twice as many codes per level, or None where ``n_rows`` rows cannot start them or 8192 is exceeded."""
    return 2 * size if 2 * size <= min(n_rows, LARGEST_CODEBOOK) else None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one CPU thread.

    A step multiplies matrices of a few hundred rows. Threads that wait for each other a dozen times a step gain
    little on an idle machine, and on a busy one they made it ten times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(slots=True)
class _Training:
    """The training loop of one model."""

    model: RqVae
    x: Tensor
    generator: torch.Generator
    restarted: int = 0
    books: list[MovingCodebook] = field(default_factory=list)

    def run(self) -> None:
        config, model = self.model.config, self.model
        self._start_codebooks()
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs, config.learning_rate / 50)
        every = max(1, config.epochs // _CURVE_POINTS)
        with meter("training the RQ-VAE", config.epochs) as step:
            for epoch in range(1, config.epochs + 1):
                reconstruction, commitment = self._epoch(optimiser)
                schedule.step()
                used = self._end_epoch(last=epoch == config.epochs)
                if epoch % every == 0 or epoch in (1, config.epochs):
                    self._record(epoch, reconstruction, commitment, used)
                step(note=f"reconstruction {reconstruction:.3f}")

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """K-means of each level on what the levels before leave of the untrained encoder's output."""
        config, model = self.model.config, self.model
        size, share = model.codebooks.shape[1], min(1.0, config.batch_size / len(self.x))
        residual = model.encoder(self.x)
        for level in range(config.levels):
            centres, counts = kmeans(residual, size, self.generator)
            model.codebooks[level] = centres
            residual = residual - centres[nearest(residual, centres)]
            self.books.append(MovingCodebook.start(model.codebooks[level], counts * share))

    def _epoch(self, optimiser: torch.optim.Optimizer) -> tuple[float, float]:
        """One pass over the rows; mean reconstruction error and commitment."""
        config, model = self.model.config, self.model
        totals = torch.zeros(2, device=self.x.device)
        for rows in torch.randperm(len(self.x), generator=self.generator).split(config.batch_size):
            batch = self.x[rows.to(self.x.device)]
            rebuilt, quantised = model(batch)
            reconstruction, commitment = rqvae_loss(batch, rebuilt, quantised)
            optimiser.zero_grad(set_to_none=True)
            (reconstruction + config.commitment_weight * commitment).backward()
            optimiser.step()
            for level, book in enumerate(self.books):
                book.update(quantised.residuals[level].detach(), quantised.codes[:, level], config.decay)
            totals += torch.stack([reconstruction.detach(), commitment.detach()]) * len(batch)
        first, second = (totals / len(self.x)).tolist()
        return first, second

    @torch.no_grad()
    def _end_epoch(self, *, last: bool) -> list[Tensor]:
        """Restart the dead codes of each level on the residuals of random rows; use of each code, per level.

        The last epoch restarts none: a codeword that the decoder has never seen would name nothing.
        """
        model, usage = self.model, []
        for level, book in enumerate(self.books):
            used, dead = book.end_epoch(model.config.dead_after)
            usage.append(used)
            if len(dead) and not last:
                rows = torch.randint(len(self.x), (len(dead),), generator=self.generator).to(self.x.device)
                book.restart(dead, quantise(model.encoder(self.x[rows]), model.codebooks).residuals[level])
                self.restarted += len(dead)
        return usage

    def _record(self, epoch: int, reconstruction: float, commitment: float, used: list[Tensor]) -> None:
        values = {"reconstruction": reconstruction, "commitment": commitment}
        values |= {f"perplexity_{level + 1}": perplexity(one.cpu().numpy()) for level, one in enumerate(used)}
        values["dead_codes_restarted"] = self.restarted
        for name, value in values.items():
            self.model.curve.setdefault(name, []).append([epoch, value])

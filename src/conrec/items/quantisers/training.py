"""Training of the RQ-VAE: k-means start, one optimiser step and one step of the averages a batch, dead-code restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conrec.errors import DataError
from conrec.items.diagnosis.diagnostics import perplexity
from conrec.items.quantisers.assignment import best_path, nearest, sinkhorn
from conrec.items.quantisers.codebooks import MovingCodebook
from conrec.items.quantisers.kmeans import principal_axes
from conrec.items.quantisers.noise import noise_for
from conrec.items.quantisers.residual_kmeans import residual_centres
from conrec.items.quantisers.rqvae import RqVae, quantised, rqvae_loss
from conrec.progress import meter

__all__ = ["fit_rqvae"]

_CURVE_POINTS = 100
HELD_OUT_FROM = 10_000
"""Where the share that is held out is left open, training sets of fewer rows hold out none."""
HELD_OUT = 0.05
SMALL_STEP = 1 << 20
"""Distances in a step up to which one thread is faster than several that wait for each other."""


def fit_rqvae(model: RqVae, x: Float[Tensor, "n d"], generator: torch.Generator) -> None:
    """Train a model whose weights are drawn on standardised rows, in place.

    Args:
        model: on the device of ``x``.
        x: rows to train on; ``rqvae.validation_share`` of them are held out, and decide when training stops.
        generator: source of start, batches and noise, on the CPU.
    """
    config = model.config
    assert config.codebook_size is not None
    share = config.validation_share
    if share is None:
        share = HELD_OUT if len(x) >= HELD_OUT_FROM else 0.0
    # The k-means start needs a row a code, whatever is held out.
    held = min(int(share * len(x)), len(x) - config.codebook_size)
    rows = torch.randperm(len(x), generator=generator).to(x.device)
    # The k-means passes over all rows a hundred times: threads pay from fewer distances a row on.
    with threads_for(len(x) * config.codebook_size // 64):
        if config.noise is None:
            model.config = config.model_copy(update={"noise": noise_for(x, config, generator)})
        training = _Training(model, x[rows[held:]], x[rows[:held]], generator)
        training.start()
    with threads_for(config.batch_size * config.codebook_size):
        training.run()
    broken = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise DataError(
            f"the RQ-VAE diverged: {broken[0]} is not finite",
            where="quantiser",
            expected="finite weights and codebooks",
            mend="Lower rqvae.learning_rate or rqvae.noise.",
        )
    model.eval()


@contextmanager
def threads_for(distances: int) -> Iterator[None]:
    """Torch on one CPU thread while steps are small.

    Such a step multiplies matrices of a few hundred rows. Threads that wait for each other a dozen times a step gain
    little on an idle machine, and on a busy one they made it ten times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if distances > SMALL_STEP else 1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(slots=True)
class _Training:
    """The training loop of one model."""

    model: RqVae
    x: Tensor
    held_out: Tensor
    generator: torch.Generator
    restarted: int = 0
    books: list[MovingCodebook] = field(default_factory=list)

    def run(self) -> None:
        config, model = self.model.config, self.model
        optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs, config.learning_rate / 50)
        every = max(1, config.epochs // _CURVE_POINTS)
        best, best_epoch, kept = float("inf"), 0, dict[str, Tensor]()
        with meter("training the RQ-VAE", config.epochs) as step:
            for epoch in range(1, config.epochs + 1):
                figures = self._epoch(optimiser)
                schedule.step()
                # Before dead codes are restarted: the decoder has not seen what they become.
                if len(self.held_out):
                    figures["validation"] = self._validation_error()
                    if figures["validation"] < best:
                        best, best_epoch = figures["validation"], epoch
                        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                used = self._end_epoch(last=epoch == config.epochs)
                stop = epoch == config.epochs or (len(self.held_out) > 0 and epoch - best_epoch >= config.patience)
                if epoch % every == 0 or epoch == 1 or stop:
                    self._record(epoch, figures, used)
                step(note=f"reconstruction {figures['reconstruction']:.3f}")
                if stop:
                    break
        if kept:
            model.load_state_dict(kept)

    @torch.no_grad()
    def start(self) -> None:
        """Linear maps onto the principal components, and residual k-means of each level there."""
        config, model = self.model.config, self.model
        model.start(principal_axes(self.x)[:, : model.codebooks.shape[2]].T)
        latents = torch.cat([model.to_latent(part) for part in self.x.split(65_536)])
        centres, counts = residual_centres(latents, config, self.generator)
        model.codebooks.copy_(centres)
        share = min(1.0, config.batch_size / len(self.x))
        for level in range(config.levels):
            self.books.append(MovingCodebook.start(model.codebooks[level], counts[level] * share))

    @torch.no_grad()
    def _choose(self, latents: Float[Tensor, "n latent"]) -> Int64[Tensor, "n levels"]:
        """Codes of a batch: the best path, or, where assignments are balanced, level by level."""
        config, codebooks = self.model.config, self.model.codebooks
        if config.balance == "none":
            return best_path(latents, codebooks, config.beam)
        residual, codes = latents, []
        for level, codebook in enumerate(codebooks):
            if config.balance == "all" or level == len(codebooks) - 1:
                codes.append(sinkhorn(residual, codebook, config.balance_epsilon))
            else:
                codes.append(nearest(residual, codebook))
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, dim=1)

    def _epoch(self, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        """One pass over the rows; mean reconstruction error and commitment."""
        config, model = self.model.config, self.model
        totals = torch.zeros(2, device=self.x.device)
        for rows in torch.randperm(len(self.x), generator=self.generator).split(config.batch_size):
            batch = self.x[rows.to(self.x.device)]
            latents = model.to_latent(self._noisy(batch))
            rebuilt, chosen = model(latents, self._choose(latents.detach()))
            reconstruction, commitment = rqvae_loss(batch, rebuilt, chosen)
            optimiser.zero_grad(set_to_none=True)
            (reconstruction + config.commitment_weight * commitment).backward()
            optimiser.step()
            for level, book in enumerate(self.books):
                book.update(chosen.residuals[level].detach(), chosen.codes[:, level], config.decay)
            totals += torch.stack([reconstruction.detach(), commitment.detach()]) * len(batch)
        first, second = (totals / len(self.x)).tolist()
        return {"reconstruction": first, "commitment": second}

    def _noisy(self, batch: Tensor) -> Tensor:
        """A batch as the encoder sees it in training."""
        noise = self.model.config.noise or 0.0
        if noise == 0:
            return batch
        drawn = torch.randn(batch.shape, generator=self.generator).to(batch.device)
        return torch.add(batch, drawn, alpha=noise)

    @torch.no_grad()
    def _validation_error(self) -> float:
        """Mean squared length of what held-out rows lose, without noise, in standardised units."""
        model, total = self.model, 0.0
        for part in self.held_out.split(8192):
            latents = model.to_latent(part)
            codes = best_path(latents, model.codebooks, model.config.beam)
            rebuilt = model.from_latent(quantised(latents, codes, model.codebooks).codewords.sum(0))
            total += float((part - rebuilt).square().sum())
        return total / len(self.held_out)

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
                latents = model.to_latent(self.x[rows])
                codes = best_path(latents, model.codebooks, model.config.beam)
                book.restart(dead, quantised(latents, codes, model.codebooks).residuals[level])
                self.restarted += len(dead)
        return usage

    def _record(self, epoch: int, figures: dict[str, float], used: list[Tensor]) -> None:
        values = {**figures}
        values |= {f"perplexity_{level + 1}": perplexity(one.cpu().numpy()) for level, one in enumerate(used)}
        values["dead_codes_restarted"] = self.restarted
        for name, value in values.items():
            self.model.curve.setdefault(name, []).append([epoch, value])

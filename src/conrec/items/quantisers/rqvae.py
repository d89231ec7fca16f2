"""RQ-VAE: an autoencoder whose latent vector is a sum of one codeword per level.

CoNRec (arXiv 2601.15721), stage 1. With ``z`` the encoder's output, ``R(1) = z``, ``Z(d)`` the codeword chosen
for ``R(d)`` and ``R(d+1) = R(d) − Z(d)``::

    L = ‖X − X̂‖² + λ Σ_d ( ‖R(d) − sg[Z(d)]‖² + ‖sg[R(d)] − Z(d)‖² )

How it is computed here, and why:

* Squares are summed over features and averaged over the batch. Averaged over features, the reconstruction
  error would be drowned by the commitment term.
* ``R(d)`` subtracts raw codewords, which carry no gradient, so the commitment term of every level reaches the
  encoder. One straight-through step, on the sum of the codewords, carries the decoder's gradient past them.
* Codebooks follow moving averages, so the second term of the bracket has no gradient: it is left out.
* Encoder and decoder are a linear map plus a network whose last layer starts at zero. The linear maps start at the
  principal components, so that training starts from residual k-means among them and can only gain.
* Codewords are chosen by a beam (`conrec.items.quantisers.assignment.best_path`), in training and afterwards alike;
  where ``rqvae.balance`` asks for balanced codes, they are balanced in training alone.
* In training the encoder sees each row with Gaussian noise, ``rqvae.noise`` times as strong as an average feature, and
  must rebuild the row without it. On a few thousand rows this decides how well rows are coded that were never seen.
* Embeddings are centred by the mean of the rows that are trained on and scaled to unit mean variance of a
  feature. What `Quantiser.rebuild` returns is centred too; cosines are taken there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conrec.config import RqVaeConfig
from conrec.items.quantisers.base import Quantiser

__all__ = ["Quantised", "RqVae", "quantised", "rqvae_loss"]


@dataclass(frozen=True, slots=True)
class Quantised:
    """Latent vectors through all levels.

    Attributes:
        codes: int64 [n, levels].
        residuals: float32 [levels, n, latent], R(d); with gradient to the encoder.
        codewords: float32 [levels, n, latent], Z(d); without gradient.
    """

    codes: Tensor
    residuals: Tensor
    codewords: Tensor


def quantised(
    latents: Float[Tensor, "n latent"],
    codes: Int64[Tensor, "n levels"],
    codebooks: Float[Tensor, "levels codebook latent"],
) -> Quantised:
    """Residuals and codewords of vectors whose codes are chosen."""
    residual = latents
    residuals: list[Tensor] = []
    codewords: list[Tensor] = []
    for level, codebook in enumerate(codebooks.detach()):
        residuals.append(residual)
        codewords.append(codebook[codes[:, level]])
        residual = residual - codewords[-1]
    return Quantised(codes, torch.stack(residuals), torch.stack(codewords))


def rqvae_loss(
    x: Float[Tensor, "n d"], rebuilt: Float[Tensor, "n d"], chosen: Quantised
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Reconstruction error and (unweighted) commitment: summed over features and levels, mean over rows."""
    reconstruction = (x - rebuilt).square().sum(1).mean()
    commitment = (chosen.residuals - chosen.codewords.detach()).square().sum(2).sum(0).mean()
    return reconstruction, commitment


class RqVae(Quantiser):
    """A trained RQ-VAE; see `Quantiser` for what it offers."""

    def __init__(self, dim: int, config: RqVaeConfig, generator: torch.Generator | None = None) -> None:
        """Weights drawn from ``generator``; zero where it is None, to be loaded over."""
        # No more latent features than the embeddings have.
        latent = min(config.latent_dim, dim)
        super().__init__(dim, latent, config)
        widths = [dim, *config.hidden_dims, latent]
        self.encoder = _mlp(widths, generator)
        self.decoder = _mlp(widths[::-1], generator)
        self.into = _linear(dim, latent)
        self.out = _linear(latent, dim)

    def start(self, axes: Float[Tensor, "latent d"]) -> None:
        """Let the linear maps be a projection onto these axes and back."""
        with torch.no_grad():
            self.into.weight.copy_(axes)
            self.out.weight.copy_(axes.T)

    def to_latent(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n latent"]:
        latent: Tensor = self.into(x) + self.encoder(x)
        return latent

    def from_latent(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n d"]:
        rebuilt: Tensor = self.out(z) + self.decoder(z)
        return rebuilt

    def forward(
        self, latents: Float[Tensor, "n latent"], codes: Int64[Tensor, "n levels"]
    ) -> tuple[Float[Tensor, "n d"], Quantised]:
        """Rebuild standardised rows from their chosen codes; one straight-through step on the sum of the codewords."""
        chosen = quantised(latents, codes, self.codebooks)
        through = latents + (chosen.codewords.sum(0) - latents).detach()
        return self.from_latent(through), chosen


def _mlp(widths: list[int], generator: torch.Generator | None) -> nn.Sequential:
    """Linear layers with ReLU between them: uniform in ±1/√fan_in, biases and the last layer's weights zero."""
    layers: list[nn.Module] = []
    for place, (fan_in, fan_out) in enumerate(pairwise(widths), start=2):
        linear = _linear(fan_in, fan_out)
        if generator is not None and place < len(widths):
            with torch.no_grad():
                drawn = torch.rand(fan_out, fan_in, generator=generator) * 2 - 1
                linear.weight.copy_(drawn / math.sqrt(fan_in))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear(fan_in: int, fan_out: int) -> nn.Linear:
    """A linear layer of zeros; the constructor would draw from torch's global generator."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    return linear

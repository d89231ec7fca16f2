"""RQ-VAE: an autoencoder whose latent vector is a sum of one codeword per level.

CoNRec (arXiv 2601.15721), stage 1. With ``z`` the encoder's output, ``R(1) = z``, ``Z(d)`` the codeword nearest
to ``R(d)`` and ``R(d+1) = R(d) − Z(d)``::

    L = ‖X − X̂‖² + λ Σ_d ( ‖R(d) − sg[Z(d)]‖² + ‖sg[R(d)] − Z(d)‖² )

How it is computed here, and why:

* Squares are summed over features and averaged over the batch. Averaged over features, the reconstruction
  error would be drowned by the commitment term.
* ``R(d)`` subtracts raw codewords, which carry no gradient, so the commitment term of every level reaches the
  encoder. One straight-through step, on the sum of the codewords, carries the decoder's gradient past them.
* Codebooks follow moving averages, so the second term of the bracket has no gradient: it is left out.
* Embeddings are centred by the mean of the rows that are trained on and scaled to unit mean variance of a
  feature. What `RqVae.rebuild` returns is centred too; cosines are taken there.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from safetensors import safe_open
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.artefacts import read_tensors, write_tensors
from conrec.config import RqVaeConfig
from conrec.errors import ArtefactError
from conrec.items.quantisers.codebooks import nearest

__all__ = ["Quantised", "RqVae", "quantise", "rqvae_loss"]

_METADATA_KEY = "conrec.rqvae"


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


def quantise(latents: Float[Tensor, "n latent"], codebooks: Float[Tensor, "levels codebook latent"]) -> Quantised:
    """Choose the nearest codeword of each level for what the levels before left over."""
    residual = latents
    codes: list[Tensor] = []
    residuals: list[Tensor] = []
    codewords: list[Tensor] = []
    for codebook in codebooks.detach():
        chosen = nearest(residual.detach(), codebook)
        codes.append(chosen)
        residuals.append(residual)
        codewords.append(codebook[chosen])
        residual = residual - codewords[-1]
    return Quantised(torch.stack(codes, 1), torch.stack(residuals), torch.stack(codewords))


def rqvae_loss(
    x: Float[Tensor, "n d"], rebuilt: Float[Tensor, "n d"], quantised: Quantised
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Reconstruction error and (unweighted) commitment: summed over features and levels, mean over rows."""
    reconstruction = (x - rebuilt).square().sum(1).mean()
    commitment = (quantised.residuals - quantised.codewords.detach()).square().sum(2).sum(0).mean()
    return reconstruction, commitment


class RqVae(nn.Module):
    """A trained RQ-VAE (see `conrec.items.quantisers.training.train_rqvae`, `RqVae.load`).

    Attributes:
        codebooks: float32 [levels, codebook, latent].
        mean: float32 [d], mean of the rows that were trained on.
        scale: float32 [], what centred rows are divided by.
        config: with the codebook size resolved.
        curve: {series: [[epoch, value], …]} of the training; empty after `load`.
    """

    codebooks: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, config: RqVaeConfig, generator: torch.Generator | None = None) -> None:
        """Weights drawn from ``generator``; zero where it is None, to be loaded over."""
        super().__init__()
        if config.codebook_size is None:
            raise ValueError("RqVae needs a resolved codebook_size")
        self.config = config
        self.curve: dict[str, list[list[float]]] = {}
        widths = [dim, *config.hidden_dims, config.latent_dim]
        self.encoder = _mlp(widths, generator)
        self.decoder = _mlp(widths[::-1], generator)
        self.register_buffer("codebooks", torch.zeros(config.levels, config.codebook_size, config.latent_dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Quantised]:
        """Rebuild standardised rows; one straight-through step on the sum of the codewords."""
        latents = self.encoder(x)
        quantised = quantise(latents, self.codebooks)
        through = latents + (quantised.codewords.sum(0) - latents).detach()
        return self.decoder(through), quantised

    def standardise(self, embeddings: Float[Array, "n d"]) -> Float[Tensor, "n d"]:
        """Embeddings as the encoder takes them, on the model's device."""
        x = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32)).to(self.mean.device)
        return (x - self.mean) / self.scale

    @torch.no_grad()
    def latents(self, embeddings: Float[Array, "n d"]) -> Float32[Array, "n latent"]:
        """The encoder's output, before quantisation."""
        parts = [self.encoder(self.standardise(part)).cpu().numpy() for part in _chunks(embeddings)]
        return np.concatenate(parts) if parts else np.empty((0, self.config.latent_dim), dtype=np.float32)

    @torch.no_grad()
    def encode(self, embeddings: Float[Array, "n d"]) -> Int32[Array, "n 3"]:
        """Raw codes of each embedding."""
        latents = torch.from_numpy(self.latents(embeddings)).to(self.mean.device)
        codes: Array = quantise(latents, self.codebooks).codes.cpu().numpy().astype(np.int32)
        return codes

    @torch.no_grad()
    def rebuild(self, codes: Int[Array, "n 3"]) -> Float32[Array, "n d"]:
        """Embeddings decoded from the sum of the codewords, centred (the training mean is not added back)."""
        parts: list[Array] = []
        for part in _chunks(codes):
            rows = torch.from_numpy(part.astype(np.int64)).to(self.mean.device)
            total = torch.stack([self.codebooks[level][rows[:, level]] for level in range(rows.shape[1])]).sum(0)
            parts.append((self.decoder(total) * self.scale).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(self.mean)), dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write weights, codebooks, mean and configuration as one safetensors file."""
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}
        # One metadata key only: safetensors writes several in no fixed order.
        write_tensors(path, tensors, {_METADATA_KEY: json.dumps(self.config.model_dump(mode="json"), sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> RqVae:
        """Read what `save` wrote, onto the CPU.

        Raises:
            ArtefactError: the file is missing, damaged or holds something else.
        """
        tensors = read_tensors(path)
        with safe_open(path, "np") as opened:
            metadata = opened.metadata() or {}
        try:
            config = RqVaeConfig.model_validate_json(metadata[_METADATA_KEY])
            model = cls(len(tensors["mean"]), config)
            model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ArtefactError(f"does not hold an RQ-VAE ({reason})", where=str(path)) from None
        return model.eval()


def _mlp(widths: list[int], generator: torch.Generator | None) -> nn.Sequential:
    """Linear layers with ReLU between them, weights uniform in ±1/√fan_in, biases zero."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        # skip_init: the constructor would draw from torch's global generator.
        linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
        bound = 1 / math.sqrt(fan_in) if generator is not None else 0.0
        with torch.no_grad():
            linear.weight.copy_((torch.rand(fan_out, fan_in, generator=generator) * 2 - 1) * bound)
            linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _chunks(rows: Array, size: int = 8192) -> list[Array]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]

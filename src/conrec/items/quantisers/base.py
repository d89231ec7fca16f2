"""What every quantiser is: codebooks of three levels, and a way from an embedding to a latent vector and back."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32
from torch import Tensor, nn

from conrec.arrays import Array
from conrec.artefacts import write_tensors
from conrec.config import RqVaeConfig
from conrec.items.quantisers.assignment import best_path

__all__ = ["METADATA_KEY", "ROWS", "Quantiser"]

METADATA_KEY = "conrec.quantiser"
ROWS = 8192
"""Rows that go through the networks at once."""


class Quantiser(nn.Module):
    """A trained quantiser (see `conrec.items.quantisers.quantiser`).

    Attributes:
        codebooks: float32 [levels, codebook, latent].
        mean: float32 [d], mean of the rows that were trained on.
        scale: float32 [], what centred rows are divided by.
        config: with the codebook size resolved.
        curve: {series: [[epoch, value], …]} of the training; empty after loading.
    """

    codebooks: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, latent_dim: int, config: RqVaeConfig) -> None:
        super().__init__()
        if config.codebook_size is None:
            raise ValueError("a quantiser needs a resolved codebook_size")
        self.config = config
        self.curve: dict[str, list[list[float]]] = {}
        self.register_buffer("codebooks", torch.zeros(config.levels, config.codebook_size, latent_dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    @abstractmethod
    def to_latent(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n latent"]:
        """What is quantised, of standardised rows."""

    @abstractmethod
    def from_latent(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n d"]:
        """Standardised rows from sums of codewords."""

    def standardise(self, embeddings: Float[Array, "n d"]) -> Float[Tensor, "n d"]:
        """Embeddings centred and scaled as the quantiser takes them, on its device."""
        x = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32)).to(self.mean.device)
        return (x - self.mean) / self.scale

    @torch.no_grad()
    def latents(self, embeddings: Float[Array, "n d"]) -> Float32[Array, "n latent"]:
        """What is quantised of each embedding."""
        parts = [self.to_latent(self.standardise(part)).cpu().numpy() for part in _chunks(embeddings)]
        return np.concatenate(parts) if parts else np.empty((0, self.codebooks.shape[2]), dtype=np.float32)

    @torch.no_grad()
    def encode(self, embeddings: Float[Array, "n d"]) -> Int32[Array, "n levels"]:
        """Raw codes of each embedding: the best path that a beam of ``rqvae.beam`` finds."""
        parts: list[Array] = []
        for part in _chunks(embeddings):
            latents = self.to_latent(self.standardise(part))
            parts.append(best_path(latents, self.codebooks, self.config.beam).cpu().numpy().astype(np.int32))
        return np.concatenate(parts) if parts else np.empty((0, len(self.codebooks)), dtype=np.int32)

    @torch.no_grad()
    def rebuild(self, codes: Int[Array, "n levels"]) -> Float32[Array, "n d"]:
        """Embeddings from the sum of the codewords, centred (the training mean is not added back)."""
        parts: list[Array] = []
        for part in _chunks(codes):
            rows = torch.from_numpy(part.astype(np.int64)).to(self.mean.device)
            total = torch.stack([self.codebooks[level][rows[:, level]] for level in range(len(self.codebooks))]).sum(0)
            parts.append((self.from_latent(total) * self.scale).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, len(self.mean)), dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write weights, codebooks, mean and configuration as one safetensors file."""
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.state_dict().items()}
        # One metadata key only: safetensors writes several in no fixed order.
        write_tensors(path, tensors, {METADATA_KEY: json.dumps(self.config.model_dump(mode="json"), sort_keys=True)})


def _chunks(rows: Array) -> list[Array]:
    return [rows[begin : begin + ROWS] for begin in range(0, len(rows), ROWS)]

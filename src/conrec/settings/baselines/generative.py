"""Settings of the baselines that generate the IDs of items with an encoder and a decoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from conrec.settings.base import Positive, Rate
from conrec.settings.baselines.base import TransformerSettings

__all__ = ["EncoderDecoderSettings", "P5CidConfig", "TigerConfig"]


class EncoderDecoderSettings(TransformerSettings):
    """A small T5, trained from scratch on the dislikes of each user. Values that differ from `TransformerSettings` were
    chosen by validation FHR@20 on MovieLens-100K."""

    batch_size: Positive = 16
    weight_decay: float = Field(default=0.1, ge=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    max_length: Positive = 20
    """Events of a history that are read, the latest (TIGER: 20)."""
    layers: Positive = 2
    """Of the encoder, and of the decoder."""
    heads: Positive = 4
    feed_forward: Positive = 256
    """Width of the layers between attentions."""
    user_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens to which the users' IDs are hashed (TIGER: 2000); 0: the model is not told who asks. With fewer users than
    tokens each has his own, and it can be learned by heart."""
    initial_scale: Rate = 0.1
    """Factor on T5's initial weights (T5: 1): it is made for output without a bias, and with one its random logits
    would only drown what the bias says."""
    encoder: Literal["bidirectional", "causal"] = "causal"
    """`bidirectional`: an event of the history attends to all of it (T5), and each target has a pass of the encoder
    of its own; `causal`: to those before it alone, and one pass serves all targets of a stretch of history: an epoch
    in a tenth of the time, and on MovieLens-100K no lower on validation."""
    loss: Literal["trie", "vocabulary"] = "trie"
    """Over what the probabilities of a code sum to 1 in training: the codes that some item has there, which makes the
    loss that of a softmax over the catalogue; or all tokens (both papers)."""
    popularity_bias: bool = True
    """With the loss over the trie: whether every state of the trie has a learned bias, which begins at the logarithm of
    the dislikes below it. It is to IDs what the item bias of other rows is to items."""


class TigerConfig(EncoderDecoderSettings):
    """TIGER."""


class P5CidConfig(EncoderDecoderSettings):
    """P5 with collaborative indexing."""

    clusters: Annotated[int, Field(ge=2)] = 20
    """Parts into which items are split at each level of the tree of clusters (paper: 5 to 20)."""
    leaf_size: Positive = 50
    """Clusters of at most so many items are not split (paper: 100 to 500, for catalogues of 12,000 items and more)."""
    graph: Literal["negative", "all"] = "negative"
    """Which events of the training period say that items occur together: dislikes, as in the histories that are read;
    or all."""
    last_token: Literal["shared", "item"] = "shared"
    """Whether the last token of an ID counts the items of its cluster (CID), or is the item's own (CID+IID)."""

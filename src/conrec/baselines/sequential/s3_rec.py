"""S3-Rec on dislikes: SASRec whose weights were pretrained on four self-supervised tasks over items and categories.

Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximisation (Zhou et al., CIKM 2020,
arXiv 2008.07873). `sequential.s3_pretraining` has the tasks, and where they depart from the paper. What is tuned is the
SASRec of `sequential.sasrec`, with its departures, from the pretrained embeddings, positions and blocks; the biases of
items start at 0. The tasks read all events of the training period, likes too, or its dislikes alone (a setting); the
tuned model reads dislikes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from conrec.baselines.base import Curve
from conrec.baselines.sequences.learning import seeded
from conrec.baselines.sequences.stretches import stretches_of
from conrec.baselines.sequential.s3_pretraining import Pretraining, pretrain
from conrec.baselines.sequential.sasrec import Sasrec, SasrecNetwork
from conrec.errors import NotApplicableError
from conrec.protocol import NEGATIVE, NEUTRAL, POSITIVE
from conrec.settings.baselines.features import S3RecConfig
from conrec.workspace import Workspace

__all__ = ["SPACE", "S3Rec", "pretrained"]

SPACE: dict[str, tuple[Any, ...]] = {
    "pretraining_epochs": (10, 40, 100),
    "pretraining_events": ("all", "negative"),
    "dropout": (0.2, 0.5),
    "weight_decay": (0.1, 1.0),
}
"""The grid that `conrec baselines search` searches."""


class S3Rec(Sasrec):
    """A fitted S3-Rec; its curve also has the loss of each pretraining task."""

    kind: ClassVar[str] = "s3-rec"

    @classmethod
    def fit(cls, space: Workspace, name: str) -> S3Rec:
        """Pretrain, then train as SASRec.

        Raises:
            NotApplicableError: no item has a category.
            DataError: nobody disliked anything in the training period.
        """
        settings: S3RecConfig = cls.settings_of(space, name)
        with seeded(space.seed(name, "weights")):
            network = SasrecNetwork(space.prepared.log.n_items, settings)
            curve = pretrained(network, space, settings, space.seed(name, "pretraining"))
            model = cls.tune(network, space, name)
        return replace(model, curve={**curve, **model.curve})


def pretrained(network: SasrecNetwork, space: Workspace, settings: S3RecConfig, seed: int) -> Curve:
    """Give a network the weights that the four tasks lead to, all but the biases of items.

    Args:
        network: of `sequential.sasrec`.
        space: its training period and its categories.
        settings: of the pretraining.
        seed: of order and chance; the weights start from torch's global generator.

    Returns:
        The mean loss of each task in every epoch; empty where there are no epochs.

    Raises:
        NotApplicableError: no item has a category.
    """
    categories = space.categories
    if not categories.names:
        raise NotApplicableError("no item has a category", expected="attributes, which two of the four tasks predict")
    if settings.pretraining_epochs == 0:
        return {}
    log = space.training_log
    signs = (NEGATIVE, NEUTRAL, POSITIVE) if settings.pretraining_events == "all" else (NEGATIVE,)
    sequences = [log.item[one.events] for one in stretches_of(log, network.max_length, signs)]
    encoder = SasrecNetwork(network.n_items, settings.model_copy(update={"dropout": settings.pretraining_dropout}))
    encoder.load_state_dict(network.state_dict())
    task = Pretraining(encoder, categories.of, len(categories.names))
    curve = pretrain(task, sequences, settings, seed)
    network.load_state_dict({**encoder.state_dict(), "bias": network.bias.detach()})
    return curve

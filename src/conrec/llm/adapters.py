"""Tuning a part of a backbone: low-rank adapters on its linear layers, and the rows of its new tokens.

``W' = W + (alpha / r) B A`` with ``B A`` of rank r (LoRA, arXiv 2106.09685; CoNRec, Stage 2, tunes its backbone so).
The linear layers of the decoder are adapted, all of them; of the embedding and of the head only the rows of semantic-ID
tokens and signs are learned, since they alone are new. Everything else is frozen. Where embedding and head are tied,
they stay so.

Behind a stage the adapters are multiplied into the weights, so that every model on disk is an ordinary one, which plain
`transformers` and vLLM load, and the next stage begins with adapters of its own. The paper does not say whether its
stages share one adapter; the sum of several is of a higher rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from conrec.errors import MissingExtraError
from conrec.llm.backbone import Backbone
from conrec.settings.models import LoraConfig

__all__ = ["NewRows", "adapted"]


class NewRows(nn.Module):
    """A matrix of which some successive rows are learned, as a parametrisation of the frozen one.

    Args:
        weight: float [vocabulary, d]; its rows from ``first`` are where the learned ones start.
        first: the first learned row.
        count: how many.
    """

    def __init__(self, weight: Float[Tensor, "vocabulary d"], first: int, count: int) -> None:
        super().__init__()
        self.first = first
        self.rows = nn.Parameter(weight.detach()[first : first + count].clone())

    def forward(self, weight: Float[Tensor, "vocabulary d"]) -> Float[Tensor, "vocabulary d"]:
        """The matrix with the learned rows in their places."""
        return torch.cat([weight[: self.first], self.rows, weight[self.first + len(self.rows) :]])


@contextmanager
def adapted(backbone: Backbone, config: LoraConfig | None, seed: int) -> Iterator[None]:
    """Inside the block only adapters and new rows of a backbone can be learned; at its end its weights hold them.

    Args:
        backbone: changed in place; whatever is learned of it must be asked for inside (``requires_grad``).
        config: of the adapters; None: all weights are learned, and nothing is done.
        seed: of the adapters' start. They start at 0 in effect: the model answers as before.

    Raises:
        MissingExtraError: peft is not installed.
    """
    if config is None:
        yield
        return
    model = backbone.model
    learned = {name: one.requires_grad for name, one in model.named_parameters()}
    _add_adapters(model, config, seed)
    matrices = _vocabulary(model)
    _add_rows(matrices, backbone.disliked, 2 + sum(backbone.sizes))
    try:
        yield
    finally:
        _merge_rows(matrices)
        _merge_adapters(model)
        for name, one in model.named_parameters():
            one.requires_grad_(learned[name])


def _vocabulary(model: Any) -> list[nn.Module]:
    """The embedding and the head."""
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def _add_adapters(model: Any, config: LoraConfig, seed: int) -> None:
    """Adapters on all linear layers but the head; every weight that was there is frozen."""
    try:
        import peft  # noqa: PLC0415 - only where it is used: it takes a second
    except ImportError as error:
        raise MissingExtraError("peft", "train") from error
    head = model.get_output_embeddings()
    layers = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and one is not head]
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=layers, bias="none"
    )
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)
    for name, one in model.named_parameters():
        one.requires_grad_("lora_" in name)


def _add_rows(matrices: list[nn.Module], first: int, count: int) -> None:
    """Learned rows of each matrix; tied matrices share them."""
    rows: dict[int, NewRows] = {}
    for matrix in matrices:
        weight: Any = matrix.weight
        new = rows.setdefault(id(weight), NewRows(weight, first, count))
        parametrize.register_parametrization(matrix, "weight", new, unsafe=True)


@torch.no_grad()
def _merge_rows(matrices: list[nn.Module]) -> None:
    """Write the learned rows into the matrices."""
    for matrix in matrices:
        held: Any = matrix.parametrizations
        new = held.weight[0]
        held.weight.original[new.first : new.first + len(new.rows)] = new.rows
        parametrize.remove_parametrizations(matrix, "weight", leave_parametrized=False)


def _merge_adapters(model: Any) -> None:
    """Add what the adapters learned to the weights, and put the plain layers back."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
    for left in ("peft_config", "_hf_peft_config_loaded"):
        if left in model.__dict__:
            delattr(model, left)

"""A run in memory with a tiny backbone, for the rows that are language models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conrec.config import BackboneConfig
from conrec.llm.backbone import Backbone, build_backbone
from conrec.llm.prompts import INSTRUCTIONS
from conrec.logs.log import Log
from conrec.workspace import Workspace
from tests.baselines.worlds import space_of

TINY = BackboneConfig(hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=64, vocabulary=320)


def backbone_of(space: Workspace, noise: float = 0.0) -> Backbone:
    """A tiny Qwen3 for the items of a run; noise makes its answers differ as after some training."""
    backbone = build_backbone(TINY, space.items.semantic_ids.sizes, space.titles, INSTRUCTIONS, seed=1)
    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=chance))
    backbone.model.eval()
    return backbone


def language_space(
    log: Log,
    cut: int,
    folder: Path,
    start: str = "conrec-translation",
    overrides: Mapping[str, Any] | None = None,
    **more: Any,
) -> Workspace:
    """A workspace in which the row that others start from is there, untrained."""
    space = space_of(log, cut, overrides, folder=folder, **more)
    target = folder / "models" / start / "model"
    target.mkdir(parents=True)
    backbone_of(space).save(target)
    return space

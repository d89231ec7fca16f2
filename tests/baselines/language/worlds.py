"""A run in memory with a tiny backbone, for the rows that are language models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conrec.config import BackboneConfig
from conrec.llm.backbone import Backbone, build_backbone
from conrec.llm.prompts import INSTRUCTIONS
from conrec.logs.anchors import build_anchors
from conrec.logs.log import Log
from conrec.protocol import DAY
from conrec.workspace import Workspace
from tests.baselines.worlds import space_of

TINY = BackboneConfig(hidden_size=32, layers=2, heads=4, key_value_heads=2, intermediate_size=64, vocabulary=320)
ITEMS, EVENTS = 60, 30
TASTE_CUT = 36 * DAY
"""T_val for `taste`."""
TASTE_TITLES = [f"{('Red', 'Blue')[item % 2]} number {item // 2}" for item in range(ITEMS)]


TINIER = TINY.model_copy(update={"hidden_size": 16, "layers": 1, "heads": 2, "key_value_heads": 1})


def backbone_of(space: Workspace, noise: float = 0.0, sizes: BackboneConfig = TINY) -> Backbone:
    """A tiny Qwen3 for the items of a run; noise makes its answers differ as after some training."""
    backbone = build_backbone(sizes, space.items.semantic_ids.sizes, space.titles, INSTRUCTIONS, seed=1)
    chance = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=chance))
    backbone.model.eval()
    return backbone


def language_space(log: Log, cut: int, folder: Path, start: str = "conrec-translation", **more: Any) -> Workspace:
    """A workspace with candidates, in which the row that others start from is there, untrained."""
    space = space_of(log, cut, folder=folder, **more)
    anchors = build_anchors(log, space.prepared.periods, 7 * DAY, candidates_seed=0)
    space.prepared = replace(space.prepared, anchors=anchors)
    target = folder / "models" / start / "model"
    target.mkdir(parents=True)
    backbone_of(space).save(target)
    return space


def taste(users: int = 30, seed: int = 0) -> Log:
    """Everybody meets an item every other day, without repeats: red ones are disliked, blue ones liked."""
    rng = np.random.default_rng(seed)
    item = np.concatenate([rng.permutation(ITEMS)[:EVENTS] for _ in range(users)])
    user = np.repeat(np.arange(users), EVENTS)
    day = np.tile(np.arange(EVENTS) * 2, users)
    names = tuple(f"u{one:02}" for one in range(users))
    ids = tuple(f"i{one:02}" for one in range(ITEMS))
    return Log.from_columns(names, ids, user, item, day * DAY + user, np.where(item % 2 == 0, -1, 1))

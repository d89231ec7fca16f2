"""Transformer blocks: one position alone against all of them, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conrec.baselines.sequences.blocks import AttentionBlock, Block, through
from conrec.baselines.sequential.esasrec import LigrBlock


@pytest.mark.parametrize("kind", [Block, LigrBlock])
@pytest.mark.parametrize("layers", [1, 3])
def test_one_position_alone_is_what_all_of_them_have_there(kind: type[AttentionBlock], layers: int) -> None:
    torch.manual_seed(0)
    blocks = nn.ModuleList(kind(16, 4, 0.5) for _ in range(layers)).double().eval()
    x, place = torch.randn(7, 9, 16, dtype=torch.float64), torch.tensor([0, 8, 3, 3, 1, 7, 8])
    torch.testing.assert_close(
        through(blocks, x, place), through(blocks, x)[torch.arange(7), place], rtol=0, atol=1e-14
    )
    # Nothing behind the place is seen.
    behind = torch.arange(9)[:, None] > place[:, None, None]
    torch.testing.assert_close(through(blocks, x.masked_fill(behind, 100.0), place), through(blocks, x, place))


def test_one_position_alone_is_for_answering_with_causal_blocks() -> None:
    x, place = torch.randn(2, 3, 4), torch.tensor([0, 2])
    for block in (Block(4, 2, 0.1), Block(4, 2, 0.1, causal=False).eval()):
        with pytest.raises(ValueError, match="causal blocks that are not being trained"):
            block.at(x, place)
    with pytest.raises(ValueError, match="takes no mask"):
        Block(4, 2, 0.1)(x, torch.ones(2, 3, dtype=torch.bool))

"""Log-probabilities on the tree, and their gradient, against one row an item."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from conrec.config import BackboneConfig
from conrec.items.eligible import EligibleTrie
from conrec.items.trie import Trie
from conrec.llm.backbone import FEW, build_backbone
from conrec.llm.policy import distinct, log_probabilities
from tests.llm.conftest import PROMPTS
from tests.llm.plain import every_score, plain_log_probabilities


@given(st.lists(st.lists(st.integers(0, 6), min_size=4, max_size=4), min_size=1, max_size=4))
def test_distinct_values(rows: list[list[int]]) -> None:
    values, index = distinct(torch.tensor(rows))
    assert values.gather(1, index).tolist() == rows
    assert values.shape[1] == max(len(set(row)) for row in rows)
    for row, found in zip(rows, values.tolist(), strict=True):
        assert found[: len(set(row))] == sorted(set(row))


def test_they_and_their_gradient_equal_the_plain_form(backbone, trie, blocked):
    """In double precision the model's norms, which compute in float32, are all that differs."""
    generator = torch.Generator().manual_seed(0)
    free = torch.stack([torch.randint(30, 40, (6,), generator=generator) for _ in PROMPTS])
    free[:, 5] = free[:, 0]  # an item twice
    codes = trie.codes[free].long()
    weights = torch.randn(3, 6, 3, generator=generator)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-6)):
        backbone.model.to(dtype)
        logs = log_probabilities(backbone, PROMPTS, EligibleTrie(trie, blocked), codes)
        backbone.model.zero_grad()
        (logs * weights).sum().backward()
        tree = {name: parameter.grad.clone() for name, parameter in backbone.model.named_parameters()}
        backbone.model.zero_grad()
        total = torch.zeros((), dtype=dtype)
        for row, prompt in enumerate(PROMPTS):
            eligible = {tuple(c.tolist()) for item, c in enumerate(trie.codes) if item not in blocked[row].tolist()}
            for column in range(6):
                plain = plain_log_probabilities(backbone, prompt, codes[row, column].tolist(), eligible)
                torch.testing.assert_close(plain, logs[row, column], atol=1e-5, rtol=1e-5, check_dtype=False)
                total = total + (plain * weights[row, column]).sum()
        total.backward()
        for name, parameter in backbone.model.named_parameters():
            scale = parameter.grad.abs().max().clamp(min=1e-6)
            assert ((parameter.grad - tree[name]).abs().max() / scale).item() < tolerance, name


@torch.no_grad()
def test_what_is_not_allowed_has_no_probability(backbone, trie, blocked):
    codes = trie.codes[None].expand(3, -1, -1).long()
    logs = log_probabilities(backbone, PROMPTS, EligibleTrie(trie, blocked), codes)
    torch.testing.assert_close(logs.sum(-1), every_score(backbone, trie, PROMPTS, blocked), atol=1e-5, rtol=1e-5)
    unknown = next(
        [a, b, c] for a in range(8) for b in range(8) for c in range(8) if [a, b, c] not in trie.codes.tolist()
    )
    absent = log_probabilities(backbone, PROMPTS, EligibleTrie(trie, blocked), torch.tensor([[unknown]] * 3))
    assert absent.sum(-1).isneginf().all()


@torch.no_grad()
def test_few_codes_of_many_are_read_from_the_head_alone():
    """A codebook of which the trie allows at most one code in sixteen behind a prefix."""
    config = BackboneConfig(hidden_size=32, layers=1, heads=4, key_value_heads=2, intermediate_size=64, vocabulary=300)
    wide = build_backbone(config, 512, ["a title"], [], seed=1)
    wide.model.eval()
    chosen = torch.randperm(512**2, generator=torch.Generator().manual_seed(0))[:30]
    codes = torch.stack([chosen // 512, chosen % 512, chosen * 7 % 512], 1)
    trie = Trie.from_codes(codes, 512)
    assert trie.widest(1) * FEW <= 512
    nothing = torch.full((3, 0), -1)
    logs = log_probabilities(wide, PROMPTS, EligibleTrie(trie, nothing), codes[None].expand(3, -1, -1))
    torch.testing.assert_close(logs.sum(-1), every_score(wide, trie, PROMPTS, nothing), atol=1e-5, rtol=1e-5)

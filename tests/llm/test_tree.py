"""The token tree against one row a path, with either padding, with adapters, and on models it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM, MptConfig, MptForCausalLM

from conrec.config import BackboneConfig
from conrec.errors import ConfigError
from conrec.llm.backbone import Backbone, _train_tokenizer, build_backbone
from conrec.llm.tree import TokenTree, check_tree
from tests.llm.conftest import PROMPTS


def grow_and_compare(backbone: Backbone, padding: str) -> None:
    """Random trees of several calls, with the prompt and earlier nodes as parents, some nodes not kept."""
    rng = np.random.default_rng(0)
    tree = TokenTree(backbone, PROMPTS, padding)
    paths: list[list[list[int]]] = [[], [], []]
    for layers, keep in (((3,), True), ((2, 4), False), ((1, 2), True), ((4,), True)):
        grown = [list(row) for row in paths]
        appended = []
        for count in layers:
            tokens = rng.integers(5, 300, size=(3, count))
            parents = rng.integers(-1, max(1, len(grown[0])), size=(3, count)) if grown[0] else np.full((3, count), -1)
            for row in range(3):
                above = [grown[row][parent] if parent >= 0 else PROMPTS[row] for parent in parents[row]]
                grown[row] += [[*path, int(token)] for path, token in zip(above, tokens[row], strict=True)]
            appended.append((torch.from_numpy(tokens), torch.from_numpy(parents)))
        hidden = tree.extend(*appended, keep=keep)
        for row in range(3):
            for node, path in enumerate(grown[row][len(paths[row]) :]):
                plain = backbone.model.get_decoder()(torch.tensor([path])).last_hidden_state[0, -1]
                torch.testing.assert_close(hidden[row, node], plain, atol=1e-4, rtol=1e-4)
        if keep:
            paths = grown
    assert tree.nodes == 16
    for row, prompt in enumerate(PROMPTS):
        plain = backbone.model.get_decoder()(torch.tensor([prompt])).last_hidden_state[0, -1]
        torch.testing.assert_close(tree.root[row], plain, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["right", "left"])
def test_any_tree_is_its_paths(backbone, padding):
    grow_and_compare(backbone, padding)


# PEFT 0.21 asks Transformers 5.23 for an attribute by its old name; delete once it asks for the new one.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@torch.no_grad()
def test_adapters_act_in_the_tree_and_leave_it(backbone):
    before = TokenTree(backbone, PROMPTS).root
    adapted = get_peft_model(backbone.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    adapted.eval()
    with_adapter = Backbone(
        adapted, *(getattr(backbone, name) for name in backbone.__dataclass_fields__ if name != "model")
    )
    grow_and_compare(with_adapter, "right")
    assert (TokenTree(with_adapter, PROMPTS).root - before).abs().max() > 0.1
    with adapted.disable_adapter():
        torch.testing.assert_close(TokenTree(with_adapter, PROMPTS).root, before)


@torch.no_grad()
def test_rows_go_on_alone(backbone):
    tree = TokenTree(backbone, PROMPTS)
    first = torch.tensor([[20, 21], [22, 23], [24, 25]])
    tree.extend((first, torch.full_like(first, -1)))
    rows = torch.tensor([2, 0])
    tree.select(rows)
    hidden = tree.extend((torch.tensor([[30], [31]]), torch.tensor([[1], [0]])))
    for row, path in enumerate(([*PROMPTS[2], 25, 30], [*PROMPTS[0], 20, 31])):
        plain = backbone.model.get_decoder()(torch.tensor([path])).last_hidden_state[0, -1]
        torch.testing.assert_close(hidden[row, 0], plain, atol=1e-4, rtol=1e-4)


def saved(model, folder) -> str:
    """A model beside a tokenizer, as an ordinary folder."""
    model.save_pretrained(folder)
    _train_tokenizer(["a title"], [], 300).save_pretrained(folder)
    return str(folder)


def test_models_that_read_a_tree_otherwise_are_refused(backbone, tmp_path):
    """ALiBi, a distance on sequences, is not a distance on trees."""
    check_tree(backbone, 60)
    config = MptConfig(vocab_size=300, d_model=32, n_heads=4, n_layers=2, max_seq_len=256)
    name = saved(MptForCausalLM(config), tmp_path / "mpt")
    with pytest.raises(ConfigError, match=r"backbone\.name.*token tree"):
        check_tree(build_backbone(BackboneConfig(name=name), 8, [], [], seed=0), 60)


def test_models_with_a_sliding_window_are_refused(tmp_path):
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    name = saved(MistralForCausalLM(config), tmp_path / "window")
    with pytest.raises(ConfigError, match=r"sliding window.*full attention"):
        build_backbone(BackboneConfig(name=name), 8, [], [], seed=0)


def test_the_last_layer_is_spared_and_gradients_stay_the_same(backbone):
    """The feed-forward block of the last layer sees one position of each prompt, that of the others all of them."""
    seen: dict[int, list[int]] = {0: [], 1: []}
    layers = backbone.model.get_decoder().layers
    handles = [
        layers[place].mlp.gate_proj.register_forward_hook(
            lambda _, given, __, place=place: seen[place].append(given[0].shape[1])
        )
        for place in seen
    ]
    gradients = []
    for padding in ("right", "left"):
        backbone.model.zero_grad()
        TokenTree(backbone, PROMPTS, padding).root.square().sum().backward()
        gradients.append(torch.cat([one.grad.flatten() for one in backbone.model.parameters()]))
    assert seen == {0: [7, 7], 1: [1, 1]}
    for handle in handles:
        handle.remove()
    backbone.model.zero_grad()
    for prompt in PROMPTS:
        backbone.model.get_decoder()(torch.tensor([prompt])).last_hidden_state[0, -1].square().sum().backward()
    plain = torch.cat([one.grad.flatten() for one in backbone.model.parameters()])
    for found in gradients:
        assert float((found - plain).norm() / plain.norm()) < 1e-5
    assert not layers[1].mlp._forward_hooks

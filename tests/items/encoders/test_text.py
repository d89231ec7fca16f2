"""The sentence encoder: the packaged default, odd texts, and a model that cannot be had."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import IncompleteSnapshotError
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from conrec.config import EncoderConfig
from conrec.errors import ConfigError, MissingExtraError
from conrec.items.encoders import models as encoders
from conrec.items.encoders.cache import VectorCache
from conrec.items.encoders.models import _of_the_hub, fingerprint, model_location, weights_of
from conrec.items.encoders.text import encode_texts
from tests.items.encoders.small_models import write_model

TEXTS = ["Toy Story (1995)", "", "🎬🎬🎬", "The Godfather (1972)", "Toy Story 2 (1999)", "Toy Story (1995)", "x" * 5000]


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return encode_texts(TEXTS, EncoderConfig(batch_size=3))


def test_default_model_makes_sense_of_titles(embeddings: np.ndarray) -> None:
    assert embeddings.shape == (7, 384)
    assert embeddings.dtype == np.float32
    assert np.isfinite(embeddings).all()
    similarity = embeddings @ embeddings.T
    assert similarity[0, 4] > 0.7 > similarity[0, 3]


def test_equal_texts_are_equal_and_order_changes_nothing(embeddings: np.ndarray) -> None:
    assert np.array_equal(embeddings[0], embeddings[5])
    again = encode_texts(TEXTS[::-1], EncoderConfig(batch_size=3))
    assert np.array_equal(again, embeddings[::-1])


def test_texts_are_cut() -> None:
    config = EncoderConfig(max_characters=5)
    whole, cut = encode_texts(["Alien (1979)", "Alien"], config)
    assert np.array_equal(whole, cut)


def test_no_texts() -> None:
    assert encode_texts([], EncoderConfig()).shape == (0, 384)


def test_the_default_comes_from_its_package_and_others_by_name() -> None:
    assert Path(model_location("all-MiniLM-L6-v2")).joinpath("modules.json").is_file()
    assert model_location("all-MiniLM-L12-v2") == "all-MiniLM-L12-v2"


def test_a_folder_without_a_model_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"encoder\.model: the sentence encoder .* cannot be loaded.*conrec\[encode\]"
    ):
        encode_texts(["x"], EncoderConfig(model=str(tmp_path)))


@pytest.mark.parametrize("module", [".", "2_Dense"])
def test_weights_that_are_only_there_as_a_pickle_are_refused(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_location("all-MiniLM-L6-v2"), folder)
    (folder / module).mkdir(exist_ok=True)
    if module == ".":
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
    else:
        weights = {"linear.weight": torch.zeros(2, 2)}
    torch.save(weights, folder / module / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("weights were unpickled"))
    with pytest.raises(ConfigError, match=r"encoder\.model.*weights as a pickle, pytorch_model\.bin.*safetensors"):
        encode_texts(["x"], EncoderConfig(model=str(folder)))
    # The loader itself takes no pickle either.
    if module == ".":
        monkeypatch.setattr(encoders, "_refuse_pickled_weights", lambda *_: None)
        with pytest.raises(ConfigError, match="cannot be loaded"):
            encode_texts(["x"], EncoderConfig(model=str(folder)))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What was fetched of the hub before, with no network now."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    _of_the_hub.cache_clear()
    yield tmp_path / "hub"
    _of_the_hub.cache_clear()


def fetched(hub: Path, repository: str, commit: str) -> Path:
    """The folder of a revision, which is the newest."""
    there = hub / f"models--{repository.replace('/', '--')}"
    (there / "refs").mkdir(parents=True, exist_ok=True)
    (there / "refs" / "main").write_text(commit)
    return there / "snapshots" / commit


def test_models_of_the_hub_are_those_that_were_fetched(embeddings: np.ndarray, hub: Path) -> None:
    config = EncoderConfig(model="someone/encoder", batch_size=3)
    with pytest.raises(ConfigError, match=r"sentence encoder 'someone/encoder' cannot be loaded.*conrec\[encode\]"):
        encode_texts(TEXTS, config)
    packaged = model_location("all-MiniLM-L6-v2")
    first = shutil.copytree(packaged, fetched(hub, "someone/encoder", "1" * 40))
    assert np.array_equal(encode_texts(TEXTS, config), embeddings)
    told = weights_of("someone/encoder")
    (first / "README.md").write_text("another program fetched this as well")
    (first / "pytorch_model.bin").write_bytes(b"and this")
    assert weights_of("someone/encoder") == told
    # The hub's model changes: for the next process.
    second = shutil.copytree(packaged, fetched(hub, "someone/encoder", "2" * 40))
    save_file(
        {name: value * 2 for name, value in load_file(first / "model.safetensors").items()},
        second / "model.safetensors",
        {"format": "pt"},
    )
    assert weights_of("someone/encoder") == told
    _of_the_hub.cache_clear()
    assert weights_of("someone/encoder") != told
    assert fingerprint("someone/encoder") != fingerprint("all-MiniLM-L6-v2")


def test_the_owner_may_be_left_out(hub: Path) -> None:
    write_model("clip", fetched(hub, "sentence-transformers/small", "1" * 40))
    write_model("siglip", fetched(hub, "whole", "1" * 40))
    assert encode_texts(["red"], EncoderConfig(model="small")).shape == (1, 8)
    assert encode_texts(["red"], EncoderConfig(model="whole")).shape == (1, 16)


def test_a_pickle_of_the_hub_is_neither_fetched_nor_read(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(model_location("all-MiniLM-L6-v2"), fetched(hub, "someone/encoder", "1" * 40))
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 9, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, dense]))
    (folder / "9_Dense").mkdir()
    (folder / "9_Dense" / "config.json").write_text(json.dumps({"in_features": 384, "out_features": 2}))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("weights were unpickled"))
    config = EncoderConfig(model="someone/encoder")
    with pytest.raises(ConfigError, match="cannot be loaded"):  # as it was fetched here
        encode_texts(["x"], config)
    (folder / "9_Dense" / "pytorch_model.bin").write_bytes(b"as another program fetched it")
    with pytest.raises(ConfigError, match=r"weights as a pickle, pytorch_model\.bin"):
        encode_texts(["x"], config)
    asked = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: asked.update({name: how}) or folder)
    _of_the_hub.cache_clear()
    weights_of("someone/encoder")
    assert "*.bin" in asked["someone/encoder"]["ignore_patterns"]


def test_a_model_of_which_a_part_was_fetched(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a program that took what it read; without the list of modules it would be another model."""
    folder = shutil.copytree(model_location("all-MiniLM-L6-v2"), fetched(hub, "someone/encoder", "1" * 40))

    def partial(*_: object, **__: object) -> str:
        raise IncompleteSnapshotError("a file is missing", snapshot_path=str(folder))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", partial)
    assert encode_texts(["x"], EncoderConfig(model="someone/encoder")).shape == (1, 384)
    _of_the_hub.cache_clear()
    (folder / "modules.json").unlink()
    with pytest.raises(ConfigError, match=r"cannot be loaded .a file is missing"):
        encode_texts(["x"], EncoderConfig(model="someone/encoder"))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "a/b/c"])
def test_folders_that_are_not_there_are_not_asked_for_at_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(ConfigError, match=f"cannot be loaded .no folder {name}"):
        encode_texts(["x"], EncoderConfig(model=name))


def test_a_pickle_beside_safetensors_is_left_alone(embeddings: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_location("all-MiniLM-L6-v2"), folder)
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert np.array_equal(encode_texts(TEXTS, EncoderConfig(model=str(folder), batch_size=3)), embeddings)


def test_cached_texts_are_the_same_to_the_bit(
    embeddings: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EncoderConfig(batch_size=3)
    with VectorCache(tmp_path, shared=False) as cache:
        assert np.array_equal(encode_texts(TEXTS, config, "cpu", cache), embeddings)
        monkeypatch.setattr(SentenceTransformer, "encode", lambda *_, **__: pytest.fail("computed again"))
        assert np.array_equal(encode_texts(TEXTS[::-1], config, "cpu", cache), embeddings[::-1])


def test_another_model_of_the_same_name_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    folder, config = tmp_path / "model", EncoderConfig(model=str(tmp_path / "model"))
    found = []
    with VectorCache(tmp_path / "cache", shared=True) as cache:
        for kind in ("clip", "siglip"):
            write_model(kind, folder)
            found.append(encode_texts(["red"], config, "cpu", cache).shape)
    assert found == [(1, 8), (1, 16)]


def test_a_text_that_is_an_address_is_read_as_text_also_by_a_model_that_sees(tmp_path: Path) -> None:
    """It would be fetched and looked at, were it handed over as a string."""
    (tmp_path / "red.png").write_bytes(b"no image")
    texts = ["http://127.0.0.1:9/red.png", str(tmp_path / "red.png"), "data:image/png;base64,AAAA", "red"]
    found = encode_texts(texts, EncoderConfig(model=str(write_model("clip", tmp_path / "clip"))))
    assert found.shape == (4, 8)
    assert np.isfinite(found).all()


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        encoders, "find_spec", lambda name: None if name == "sentence_transformers" else importlib.util.find_spec(name)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'conrec\[encode\]'"):
        encode_texts(["x"], EncoderConfig())

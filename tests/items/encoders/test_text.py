"""The sentence encoder: the packaged default, odd texts, and a model that cannot be had."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from conrec.config import EncoderConfig
from conrec.errors import ConfigError, MissingExtraError
from conrec.items.encoders import models as encoders
from conrec.items.encoders.cache import VectorCache
from conrec.items.encoders.models import model_location
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
    # The loader itself takes no pickle either, as for a model of the hub, whose files are not there to look at.
    if module == ".":
        monkeypatch.setattr(encoders, "_refuse_pickled_weights", lambda *_: None)
        with pytest.raises(ConfigError, match="cannot be loaded"):
            encode_texts(["x"], EncoderConfig(model=str(folder)))


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

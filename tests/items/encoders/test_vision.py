"""Small CLIP, SigLIP and image-only models look at drawings; broken images among them change nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import CLIPModel

from conrec.config import EncoderConfig, ImageConfig
from conrec.errors import ConfigError, MissingExtraError
from conrec.items.encoders import models as loading
from conrec.items.encoders import vision
from conrec.items.encoders.cache import VectorCache
from conrec.items.encoders.images import read_image
from conrec.items.encoders.text import encode_texts
from conrec.items.encoders.vision import see
from tests.items.encoders.small_models import file_of, picture, write_model

IMAGES = [
    "0.png",
    "1.png",
    None,
    "2.png",
    "broken.jpg",
    "gone.png",
    "0.png",
    "",
    "http://127.0.0.1:9/a.png",
    "copy.png",
]
TEXTS = [f"a red square {number}" for number in range(len(IMAGES))]
READ = [True, True, False, True, False, False, True, False, False, True]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    for number in range(3):
        (made / f"{number}.png").write_bytes(file_of(picture(number)))
    (made / "copy.png").write_bytes(file_of(picture(1)))
    (made / "broken.jpg").write_bytes(file_of(picture(3), "JPEG")[:400])
    for kind in ("clip", "siglip", "vit"):
        write_model(kind, made / kind)
    return made


def settings(folder: Path, kind: str, **image: Any) -> EncoderConfig:
    return EncoderConfig(image=ImageConfig(**{"model": str(folder / kind), "folder": folder, "batch_size": 2, **image}))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_both_towers_are_those_of_transformers(kind: str, folder: Path) -> None:
    seen = see(IMAGES, TEXTS, settings(folder, kind))
    assert seen.read.tolist() == READ
    assert seen.refused == {"no image": 2, "truncated": 1, "missing file": 1, "addresses are off": 1}
    assert seen.examples["truncated"][0] == 4
    assert "broken.jpg" in seen.examples["truncated"][1]
    assert (seen.image[~seen.read] == 0).all()
    model = SentenceTransformer(str(folder / kind), device="cpu")
    pictures = [read_image(IMAGES[row], ImageConfig(folder=folder)) for row in np.flatnonzero(READ)]
    assert np.allclose(seen.image[seen.read], unit(model.encode(pictures)), atol=1e-5)
    assert seen.text is not None
    assert np.allclose(seen.text, unit(model.encode(TEXTS)), atol=1e-5)
    if kind == "clip":
        with torch.no_grad():
            pixels = model[0].processor(images=pictures[:1], return_tensors="pt")
            plain = CLIPModel.from_pretrained(folder / kind).get_image_features(**pixels).pooler_output.numpy()
        assert np.allclose(seen.image[:1], unit(plain), atol=1e-5)
    # The same file twice, and under another name: the same vector to the bit within a batch.
    assert np.array_equal(seen.image[0], seen.image[6])
    assert np.allclose(seen.image[1], seen.image[9], atol=1e-6)


def test_order_changes_nothing_and_neither_does_a_cache(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, "clip")
    seen, turned = see(IMAGES, TEXTS, config), see(IMAGES[::-1], TEXTS[::-1], config)
    assert np.array_equal(turned.image[::-1], seen.image)
    with VectorCache(tmp_path, shared=False) as cache:
        for _ in range(2):
            found = see(IMAGES, TEXTS, config, "cpu", cache)
            assert np.array_equal(found.image, seen.image)
            assert found.text is not None
            assert seen.text is not None
            assert np.array_equal(found.text, seen.text)
            assert (found.refused, found.read.tolist()) == (seen.refused, READ)


def test_a_killed_run_goes_on_from_its_last_batch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(folder, "clip", batch_size=1)
    whole = see(IMAGES, TEXTS, config)
    encode, looked = SentenceTransformer.encode, []

    def killed(self: SentenceTransformer, inputs: list[Any], **options: Any) -> Any:
        if not isinstance(inputs[0], dict):
            looked.append(len(inputs))
            if len(looked) == 3:
                raise KeyboardInterrupt
        return encode(self, inputs, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", killed)
    with pytest.raises(KeyboardInterrupt), VectorCache(tmp_path, shared=False) as cache:
        see(IMAGES, TEXTS, config, "cpu", cache)
    with VectorCache(tmp_path, shared=False) as cache:
        resumed = see(IMAGES, TEXTS, config, "cpu", cache)
    assert np.array_equal(resumed.image, whole.image)
    # Two were kept, the third was killed and done again; "copy.png" is of the same content as one before.
    assert len(looked) == 4


def test_a_model_that_reads_no_text(folder: Path) -> None:
    seen = see(IMAGES, TEXTS, settings(folder, "vit"))
    assert seen.text is None
    assert seen.read.tolist() == READ
    assert np.allclose(np.linalg.norm(seen.image[seen.read], axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"encoder\.image\.joint: the model .* reads no text"):
        see(IMAGES, TEXTS, settings(folder, "vit", joint=True))


def test_joint_is_the_sum_of_both_towers_where_a_model_takes_one_at_a_time(folder: Path) -> None:
    alone, joint = (see(IMAGES, TEXTS, settings(folder, "clip", joint=one)) for one in (False, True))
    assert not joint.joint
    assert alone.text is not None
    assert np.allclose(joint.image[joint.read], unit(alone.image + alone.text)[joint.read], atol=1e-5)
    assert (joint.image[~joint.read] == 0).all()


def test_joint_is_one_input_of_a_model_of_transformers(folder: Path, tmp_path: Path) -> None:
    config = settings(folder, "clip", model=str(write_model("blip", tmp_path / "blip")), joint=True)
    seen = see([*IMAGES, "0.png"], [*TEXTS, "some green lines"], config)
    assert seen.joint
    assert seen.read.tolist() == [*READ, True]
    assert not np.array_equal(seen.image[-1], seen.image[0])
    model = SentenceTransformer(config.image.model, device="cpu")
    image = read_image("0.png", config.image)
    both = [{"image": image, "text": TEXTS[0]}, {"image": image, "text": "some green lines"}]
    assert np.allclose(seen.image[[0, -1]], unit(model.encode(both)), atol=1e-5)


def test_a_joint_input_is_of_its_image_and_its_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the kind that reads an image with its text, in the place of one of billions of weights."""

    class Both:
        def supports(self, modality: Any) -> bool:
            return modality in ("text", "image", ("image", "text"))

        def encode(self, inputs: list[Any], **_: Any) -> np.ndarray:
            rows = []
            for one in inputs:
                mean = np.asarray(one["image"], dtype=np.float64).mean((0, 1)) / 255 if "image" in one else np.zeros(3)
                rows.append([*mean, float(one["text"].split()[-1]), 1.0])
            return np.asarray(rows)

    monkeypatch.setattr(vision, "load_encoder", lambda *_: Both())
    seen = see([*IMAGES, "0.png"], [*TEXTS, "another text 7"], settings(folder, "clip", joint=True))
    assert seen.joint
    expected = [*(np.asarray(picture(0), dtype=np.float64).mean((0, 1)) / 255), 0, 1]
    assert np.allclose(seen.image[0], unit(np.asarray([expected]))[0], atol=1e-5)
    # The same image with another text is another input.
    assert seen.image[-1][3] > 0.9 > seen.image[0][3]
    assert seen.text is not None
    assert np.allclose(seen.text[3], unit(np.asarray([[0, 0, 0, 3.0, 1]]))[0])


def test_no_image_at_all(folder: Path) -> None:
    seen = see([None, "gone.png"], ["red", "blue"], settings(folder, "clip"))
    assert (seen.image.shape, seen.read.tolist()) == ((2, 8), [False, False])
    assert see([None], ["red"], settings(folder, "vit")).image.shape == (1, 16)
    assert see([], [], settings(folder, "clip")).image.shape == (0, 8)


def test_models_that_cannot_be_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.image\.model: no model is named"):
        see(IMAGES, TEXTS, EncoderConfig())
    with pytest.raises(
        ConfigError, match=r"encoder\.image\.model: the model 'all-MiniLM-L6-v2' reads text and no images"
    ):
        see(IMAGES, TEXTS, settings(folder, "clip", model="all-MiniLM-L6-v2"))
    with pytest.raises(ConfigError, match=r"encoder\.image\.model: the image encoder .* cannot be loaded"):
        see(IMAGES, TEXTS, settings(folder, "clip", model=str(tmp_path)))
    pickled = write_model("clip", tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({"weights": torch.zeros(2)}, pickled / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("weights were unpickled"))
    with pytest.raises(ConfigError, match=r"encoder\.image\.model.*weights as a pickle, pytorch_model\.bin"):
        see(IMAGES, TEXTS, settings(folder, "clip", model=str(pickled)))


def test_weights_that_overflow_are_named(folder: Path, tmp_path: Path) -> None:
    model = CLIPModel.from_pretrained(write_model("clip", tmp_path / "clip"))
    with torch.no_grad():
        model.visual_projection.weight.fill_(float("inf"))
    model.save_pretrained(tmp_path / "clip")
    with pytest.raises(ConfigError, match="the image encoder gives vectors that are not finite"):
        see(IMAGES, TEXTS, settings(folder, "clip", model=str(tmp_path / "clip")))
    assert encode_texts(["red"], EncoderConfig(model=str(tmp_path / "clip"))).shape == (1, 8)


@pytest.mark.parametrize(("package", "name"), [("PIL", "pillow"), ("sentence_transformers", "sentence-transformers")])
def test_a_missing_package_names_its_extra(
    package: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(loading, "find_spec", lambda one: None if one == package else found(one))
    with pytest.raises(MissingExtraError, match=rf"'{name}'.*pip install 'conrec\[image\]'"):
        see(IMAGES, TEXTS, settings(folder, "clip"))

"""Fusion against its formula, written out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.arrays import Array
from conrec.artefacts import write_tensors
from conrec.errors import ArtefactError, ConfigError
from conrec.items.encoders.fusion import Fusion, View


def view(items: int, dim: int, seed: int, missing: tuple[int, ...] = ()) -> View:
    rows = np.random.default_rng(seed).normal(2.0, seed + 1, size=(items, dim)).astype(np.float32)
    present = np.ones(items, dtype=np.bool_)
    present[list(missing)] = False
    rows[~present] = 0
    return View(rows, present)


def by_hand(views: dict[str, View], weights: dict[str, float]) -> Array:
    blocks = []
    for name, one in views.items():
        there = [row.astype(np.float64) for row, present in zip(one.rows, one.present, strict=True) if present]
        mean = sum(there) / len(there)
        length = np.sqrt(sum(((row - mean) ** 2).sum() for row in there) / len(there))
        blocks.append(
            [
                (row - mean) / length * weights[name] if present else np.zeros(len(mean))
                for row, present in zip(one.rows, one.present, strict=True)
            ]
        )
    return np.concatenate([np.asarray(block) for block in blocks], axis=1)


def test_text_alone_is_left_as_it_is() -> None:
    views = {"text": view(6, 4, 0)}
    fusion = Fusion.fit(views, {"text": 1.0})
    assert fusion.identity
    assert fusion.apply(views) is views["text"].rows
    assert not Fusion.fit(views, {"text": 2.0}).identity
    assert not Fusion.fit(views, {"text": 1.0}, pca_dim=2).identity
    assert not Fusion.fit({"image": views["text"]}, {"image": 1.0}).identity


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 12), st.floats(0.1, 5), st.integers(0, 99), st.sets(st.integers(0, 2), max_size=2))
def test_the_formula(items: int, weight: float, seed: int, missing: set[int]) -> None:
    views = {"text": view(items, 4, seed), "image": view(items, 3, seed + 1, tuple(missing))}
    weights = {"text": 1.0, "image": weight}
    fused = Fusion.fit(views, weights).apply(views)
    assert fused.dtype == np.float32
    assert np.allclose(fused, by_hand(views, weights), atol=1e-5)
    assert (fused[sorted(missing), 4:] == 0).all()
    # A view's share of the squared length is that of its squared weight.
    present = views["image"].present
    squares = np.square(fused[present, 4:]).sum(1).mean()
    assert squares == pytest.approx(weight**2, rel=1e-4)


def test_rows_alike_and_views_of_nothing() -> None:
    alike = View(np.ones((4, 3), dtype=np.float32), np.ones(4, dtype=np.bool_))
    nothing = View(np.zeros((4, 2), dtype=np.float32), np.zeros(4, dtype=np.bool_))
    views = {"image": alike, "negative": nothing}
    for pca_dim, whiten in ((None, False), (2, False), (2, True)):
        fusion = Fusion.fit(views, {"image": 1.0, "negative": 1.0}, pca_dim, whiten=whiten)
        fused = fusion.apply(views)
        assert fused.shape == (4, fusion.dim)
        assert (fused == 0).all()


def test_later_items_are_fused_as_those_of_the_training() -> None:
    views = {"text": view(9, 4, 3), "negative": view(9, 2, 4)}
    weights = {"text": 1.0, "negative": 0.5}
    first = {name: View(one.rows[:6], one.present[:6]) for name, one in views.items()}
    fusion = Fusion.fit(first, weights)
    assert np.array_equal(fusion.apply(views)[:6], fusion.apply(first))
    later = fusion.apply({"text": View(views["text"].rows[6:], views["text"].present[6:])})
    assert np.array_equal(later[:, :4], fusion.apply(views)[6:, :4])
    assert (later[:, 4:] == 0).all()


def test_principal_components() -> None:
    views = {"text": view(40, 5, 5), "image": view(40, 4, 6)}
    weights = {"text": 1.0, "image": 1.0}
    whole = by_hand(views, weights)
    _, singular, directions = np.linalg.svd(whole, full_matrices=False)
    fusion = Fusion.fit(views, weights, pca_dim=3)
    fused = fusion.apply(views)
    assert (fused.shape, fusion.dim) == ((40, 3), 3)
    assert np.allclose(np.abs(fused), np.abs(whole @ directions[:3].T), atol=1e-5)
    assert fusion.components is not None
    assert (fusion.components[np.arange(3), np.abs(fusion.components).argmax(1)] > 0).all()
    white = Fusion.fit(views, weights, pca_dim=3, whiten=True).apply(views)
    assert np.allclose(white.T @ white / 40, np.eye(3), atol=1e-4)
    assert np.allclose(np.square(fused).sum(0), singular[:3] ** 2, rtol=1e-4)
    # All of them: a rotation, nothing is lost.
    rotated = Fusion.fit(views, weights, pca_dim=9).apply(views)
    assert np.allclose(rotated @ rotated.T, whole @ whole.T, atol=1e-4)
    again = Fusion.fit(views, weights, pca_dim=3).apply(views)
    assert np.array_equal(again, fused)
    with pytest.raises(ConfigError, match=r"encoder\.pca_dim: 10 principal components .* length 9; expected at most 9"):
        Fusion.fit(views, weights, pca_dim=10)


@pytest.mark.parametrize("pca_dim", [None, 4])
def test_saved_and_loaded(pca_dim: int | None, tmp_path: Path) -> None:
    views = {"text": view(20, 4, 7), "image": view(20, 3, 8, (2, 5))}
    gap = np.asarray([0.5, -1, 2], dtype=np.float32)
    fusion = Fusion.fit(
        views,
        {"text": 1.0, "image": 0.3},
        pca_dim,
        whiten=pca_dim is not None,
        gap=gap,
        made_from={"text": "a", "image": "b"},
    )
    fusion.save(tmp_path / "fusion.safetensors")
    loaded = Fusion.load(tmp_path / "fusion.safetensors")
    assert np.array_equal(loaded.apply(views), fusion.apply(views))
    assert (loaded.names, loaded.weights, loaded.made_from) == (fusion.names, fusion.weights, fusion.made_from)
    assert loaded.gap is not None
    assert np.array_equal(loaded.gap, gap)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "fusion.safetensors").read_bytes()
    assert json.loads(json.dumps(loaded.describe())) == fusion.describe()


def test_bad_inputs(tmp_path: Path) -> None:
    views = {"text": view(5, 4, 0), "image": view(5, 3, 1)}
    fusion = Fusion.fit(views, {"text": 1.0, "image": 1.0})
    with pytest.raises(ValueError, match=r"'text' of shape \(5, 3\)"):
        fusion.apply({"text": views["image"]})
    with pytest.raises(ValueError, match="no view to apply, of text, image"):
        fusion.apply({})
    with pytest.raises(ValueError, match="'positive'"):
        fusion.apply({**views, "positive": views["image"]})
    path = tmp_path / "fusion.safetensors"
    with pytest.raises(ArtefactError, match="missing"):
        Fusion.load(path)
    write_tensors(path, {"x": np.zeros(3)})
    with pytest.raises(ArtefactError, match="does not hold a fusion"):
        Fusion.load(path)
    described = fusion.describe()
    described["views"][0]["dim"] = 9
    write_tensors(path, {"mean.text": np.zeros(4), "mean.image": np.zeros(3)}, {"conrec": json.dumps(described)})
    with pytest.raises(ArtefactError, match="lengths of its means"):
        Fusion.load(path)

"""The study of stability: nothing is measured twice, and its tables say what the files hold."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.common.item_vectors import clusters
from benchmarks.studies import stability


@pytest.fixture
def catalogue():
    return stability.Catalogue(clusters(300, 8, 0), None, None, {"latent_dim": 8, "epochs": 3, "codebook_size": 16})


def test_what_is_there_is_not_measured_again(catalogue, tmp_path, monkeypatch):
    file = tmp_path / "found.json"
    stability.study("clusters-100k", catalogue, ["residual k-means"], [0], file)
    first = json.loads(file.read_text())
    assert (first["items"], first["features"]) == (300, 8)

    calls = []
    measure = stability.measure
    monkeypatch.setattr(stability, "measure", lambda *given: calls.append(given) or measure(*given))
    stability.study("clusters-100k", catalogue, ["residual k-means", "RQ-VAE without noise"], [0], file)
    again = json.loads(file.read_text())
    assert [config.method for _, config, _ in calls] == ["rqvae"]
    assert again["quantisers"]["residual k-means"] == first["quantisers"]["residual k-means"]

    # Ten per cent are held out of the study, and ten per cent of the others of the smaller catalogue.
    found = again["quantisers"]["RQ-VAE without noise"]["seeds"]["0"]
    assert found["noise_in_training"] == 0
    assert found["stability"]["training_items"] == 270
    assert found["stability"]["fewer"]["held_out"] == 27
    assert found["not_trained_on"]["noise"][0]["items"] == 30
    assert found["stability"]["appended"]["kept"] == [1, 1, 1]
    with pytest.raises(SystemExit, match="stability/clusters-100k"):
        stability.study("ml-100k", catalogue, ["residual k-means"], [0], file)


def test_fit_is_that_of_the_formula(catalogue):
    training = np.arange(300) < 270
    rows = catalogue.embeddings
    config = stability.RqVaeConfig(method="residual_kmeans", codebook_size=16)
    model = stability.train_quantiser(rows[training], config, 0)
    found = stability.fit(model, rows, training, 0)
    centred = rows - rows[training].mean(axis=0)
    rebuilt = model.rebuild(model.encode(rows))
    for key, own in (("error", slice(None)), ("error_held_out", ~training)):
        expected = np.linalg.norm(centred[own] - rebuilt[own]) ** 2 / np.linalg.norm(centred[own]) ** 2
        assert found[key] == pytest.approx(expected, rel=1e-5)
    assert 0 < found["neighbours"] < 1


def test_a_text_is_encoded_once(monkeypatch):
    asked = []

    def encode(texts, config):
        asked.append(list(texts))
        return np.array([[len(text)] for text in texts], dtype=np.float32)

    monkeypatch.setattr(stability, "encode_texts", encode)
    encoder = stability.Encoder()
    for texts in (["one", "three", "one"], ["three", "five!!"], ["one"]):
        items = pa.table({"text": texts, "title": texts})
        assert encoder(items)[:, 0].tolist() == [len(text) for text in texts]
    assert asked == [["one", "three"], ["five!!"]]


def test_items_that_were_not_trained_on_are_taken_with_their_texts(monkeypatch):
    rows = clusters(60, 8, 0)
    items = pa.table({"item_id": [str(row) for row in range(60)]})
    chosen = np.arange(60) % 3 == 0
    given = []
    monkeypatch.setattr(stability, "in_other_words", lambda *arguments: given.append(arguments) or ["words"])
    model = stability.train_quantiser(rows, stability.RqVaeConfig(method="residual_kmeans", codebook_size=4), 0)
    found = stability.other_items(model, stability.Catalogue(rows, items, len, {}), chosen, 0)
    assert found["paraphrase"] == ["words"]
    assert found["noise"][0]["items"] == 20
    assert given[0][2]["item_id"].to_pylist() == [str(row) for row in range(0, 60, 3)]
    np.testing.assert_array_equal(given[0][1], rows[::3])


def test_means_leave_out_what_a_seed_lacks():
    lines = [{"kept": [1.0, None], "more": [1.0]}, {"kept": [0.5, 0.5], "more": None}]
    assert stability.mean_of(lines) == {"kept": [0.75, None], "more": None}


def made_up(share: float, texts: bool) -> dict:
    again = {
        "within_parents": [share] * 3,
        "chance": [0.1] * 3,
        "globally": [share] * 3,
        "pairs": [{"kept": None, "adjusted_rand": -0.004}] * 3,
    }
    words = [{"rule": "article", "cosine": 0.9, "kept": [share] * 3}, {"rule": "year", "cosine": None, "kept": None}]
    return {
        "noise_in_training": None,
        "not_trained_on": {
            "noise": [{"relative_norm": 0.05, "kept": [0.25] * 3}],
            "paraphrase": words[:1] if texts else None,
        },
        "fit": dict.fromkeys(("error", "error_held_out", "neighbours", "neighbours_held_out", "collision_rate"), share),
        "stability": {
            "noise": [{"relative_norm": 0.05, "kept": [share] * 3}],
            "paraphrase": words if texts else None,
            "retrained": again,
            "fewer": again,
            "appended": {"kept": [1.0] * 3},
        },
    }


def result(name: str, shares: list[float], texts: bool) -> dict:
    seeds = {str(seed): made_up(share, texts) for seed, share in enumerate(shares)}
    return {"study": f"stability/{name}", "quantisers": {"residual k-means": {"seeds": seeds}, "RQ-VAE": {"seeds": {}}}}


def test_tables_have_a_line_a_set_and_quantiser_and_small_sets_first():
    text = stability.tables([result("clusters-100k", [1.0], texts=False), result("ml-100k", [0.5, 0.75], texts=True)])
    lines = text.splitlines()
    assert [line.strip("*") for line in lines if line.startswith("**")] == list(stability.TABLES)
    ours = [line for line in lines if line.startswith(("| ml", "| clusters"))]
    assert ours[0] == "| ml-100k | residual k-means | – | 0.62 | 0.62 | 0.62 | 0.62 | 0.62 |"
    assert ours[1] == "| clusters-100k | residual k-means | – | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |"
    assert ours[2] == "| ml-100k | residual k-means | 0.62 0.62 0.62 | 0.25 0.25 0.25 |"
    # Texts: a line of cosines, and none of the set that has no texts.
    assert ours[4:6] == [
        "| ml-100k | (cosine of the two texts) | 0.90 | – |",
        "| ml-100k | residual k-means | 0.62 0.62 0.62 | – |",
    ]
    assert ours[6] == "| ml-100k | residual k-means | 0.62 0.62 0.62 |"
    assert ours[7].endswith("| – – – | −0.00 −0.00 −0.00 |")
    assert len(ours) == 11
    assert all(line.count("|") == ours[-1].count("|") for line in ours[-2:])

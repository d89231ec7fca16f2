"""Stability of codes on small clusters: what stays when nothing changes, and what moves when something does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from conrec.config import RqVaeConfig
from conrec.items.diagnosis import stability
from conrec.items.diagnosis.figures import stability_listings
from conrec.items.diagnosis.paraphrase import RULES
from conrec.items.diagnosis.stability import HELD_OUT, describe_stability
from conrec.items.quantisers.quantiser import Quantiser, train_quantiser
from conrec.logs.catalogue import item_text
from conrec.logs.schema import ITEMS

N, D, TRAIN, SIZE = 160, 12, 140, 16
CONFIG = RqVaeConfig(codebook_size=None, hidden_dims=(16,), latent_dim=8, epochs=8, batch_size=64)


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, D)) * 3
    return (centres[np.arange(N) % 8] + random.normal(size=(N, D)) * 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def model(embeddings: np.ndarray) -> Quantiser:
    found = train_quantiser(embeddings[:TRAIN], CONFIG, 7)
    assert found.codebooks.shape[1] == SIZE
    return found


def catalogue() -> pa.Table:
    titles = [f"Film {item}, The ({1950 + item % 50})" if item % 2 else f"Film {item}" for item in range(N)]
    category = [["Drama", "War"] if item % 4 else [] for item in range(N)]
    columns = {
        "item_id": [str(item) for item in range(N)],
        "title": titles,
        "text": [item_text(str(item), titles[item], category[item]) for item in range(N)],
        "category": category,
        "image": [None] * N,
    }
    return pa.table(columns, schema=ITEMS)


def embedded(some: pa.Table) -> np.ndarray:
    """An encoder that reads the number of a film, and whether its title has a year."""
    rows = np.zeros((some.num_rows, D), dtype=np.float32)
    for row, text in enumerate(some["text"].to_pylist()):
        rows[row, 0] = 50.0 if "(" in text else 0.0
        rows[row, 1] = len(some["item_id"][row].as_py())
    return rows


def describe(model: Quantiser, embeddings: np.ndarray, **changes: Any) -> dict[str, Any]:
    values = {"config": CONFIG, "seed": 7, "embed": None, **changes}
    return describe_stability(model, embeddings, np.arange(N) < TRAIN, catalogue(), **values)


@pytest.fixture(scope="module")
def found(model: Quantiser, embeddings: np.ndarray) -> dict[str, Any]:
    return describe(model, embeddings, embed=embedded)


def test_it_is_json_and_the_same_again(found: dict[str, Any], model: Quantiser, embeddings: np.ndarray) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert describe(model, embeddings, embed=embedded) == found


def test_no_noise_moves_nothing_and_more_noise_more(
    model: Quantiser, embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "NOISE", (0.0, 0.1, 1.0))
    none, some, much = describe(model, embeddings)["noise"]
    assert none["kept"] == [1, 1, 1]
    assert 1 > some["kept"][2] > much["kept"][2]
    assert all(one["kept"] == sorted(one["kept"], reverse=True) for one in (some, much))


def test_noise_has_the_length_it_says(
    model: Quantiser, embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    encode = Quantiser.encode

    def spy(self: Quantiser, rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return encode(self, rows)

    monkeypatch.setattr(Quantiser, "encode", spy)
    monkeypatch.setattr(stability, "NOISE", (0.25,))
    monkeypatch.setattr(stability, "SAMPLE", 50)
    assert describe(model, embeddings)["noise"][0]["items"] == 50
    noisy = [rows for rows in seen if len(rows) == 50]
    plain, *others = noisy
    assert len(others) == stability.DRAWS
    for rows in others:
        relative = np.linalg.norm(rows - plain, axis=1) / np.linalg.norm(plain, axis=1)
        assert relative == pytest.approx(np.full(50, 0.25), rel=1e-4)


def test_other_words_count_where_they_change_the_text(found: dict[str, Any]) -> None:
    rules = {one["rule"]: one for one in found["paraphrase"]}
    assert list(rules) == list(RULES)
    assert {rule: one["items"] for rule, one in rules.items()} == {
        "article": N // 2, "year": N // 2, "categories": 3 * N // 4, "lower case": N, "all of these": N
    }  # fmt: skip
    assert rules["lower case"]["kept"] == [1, 1, 1], "this encoder does not read it"
    assert rules["lower case"]["cosine"] == pytest.approx(1)
    assert rules["year"]["cosine"] < 0.9
    assert rules["year"]["kept"][0] < 1


def test_no_text_no_paraphrase(model: Quantiser, embeddings: np.ndarray) -> None:
    found = describe(model, embeddings)
    assert found["paraphrase"] is None
    assert stability_listings(found)[0].rows[-1][0].endswith("items appended")


def test_training_again(found: dict[str, Any], model: Quantiser, embeddings: np.ndarray) -> None:
    again, fewer = found["retrained"], found["fewer"]
    assert again["seed"] != found["seed"]
    assert again["items"] == N
    assert fewer["held_out"] == round(HELD_OUT * TRAIN)
    assert fewer["items"] == TRAIN - fewer["held_out"]
    for one in (again, fewer):
        assert one["within_parents"][0] == one["globally"][0] > one["chance"][0]
        assert one["within_parents"] == sorted(one["within_parents"], reverse=True)
        assert one["globally"] == sorted(one["globally"], reverse=True)
        assert one["pairs"][0]["adjusted_rand"] > 0.3, "eight clusters are found by every training"
    same = stability._matched(model.encode(embeddings), model.encode(embeddings), 0)
    assert same["within_parents"] == same["globally"] == [1, 1, 1]


def test_appending_moves_nothing(found: dict[str, Any]) -> None:
    assert found["appended"] == {"items": round(HELD_OUT * TRAIN), "kept": [1, 1, 1]}


def test_a_catalogue_too_small_to_hold_items_out(model: Quantiser, embeddings: np.ndarray) -> None:
    table = catalogue().slice(0, SIZE)
    every = np.ones(SIZE, dtype=np.bool_)
    found = describe_stability(model, embeddings[:SIZE], every, table, CONFIG, 7, None)
    assert found["fewer"] is None
    assert found["appended"] is None
    assert len(stability_listings(found)[1].rows) == 5


def test_listings_say_every_figure(found: dict[str, Any]) -> None:
    kept, trained = stability_listings(found)
    assert len(kept.rows) == 3 + len(RULES) + 1
    assert all(len(row) == len(listing.columns) for listing in (kept, trained) for row in listing.rows)
    assert kept.rows[0][0] == "noise of 1% of the length"
    assert kept.rows[0][2:] == tuple(f"{one:.3f}" for one in found["noise"][0]["kept"])
    assert trained.rows[0][1:] == tuple(f"{one:.3f}" for one in found["retrained"]["within_parents"])


def test_texts_that_no_rule_changes(model: Quantiser, embeddings: np.ndarray) -> None:
    columns = {"item_id": [str(item) for item in range(N)], "title": ["film"] * N, "text": ["film."] * N}
    items = pa.table(columns | {"category": [[]] * N, "image": [None] * N}, schema=ITEMS)
    found = describe_stability(model, embeddings, np.arange(N) < TRAIN, items, CONFIG, 7, embedded)
    assert found["paraphrase"] == [{"rule": rule, "items": 0, "cosine": None, "kept": None} for rule in RULES]

"""Items as vectors: every view, the gap between image and text, and nothing of later items in those of the training."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from benchmarks.common.posters import join_posters, normal_title, poster_of, read_posters

from conrec.config import Config, EncoderConfig, load_config
from conrec.errors import ArtefactError, ConfigError, DataError
from conrec.items.build import build_items, read_items
from conrec.items.encoders.embed import FUSION, embed_items, embed_new, item_texts
from conrec.items.encoders.fusion import Fusion
from conrec.items.encoders.text import encode_texts
from conrec.items.encoders.vision import see
from conrec.logs.schema import ITEMS
from conrec.logs.sources import Loaded
from tests.items.encoders.small_models import file_of, picture, write_model

ROWS = 24
TRAIN = np.arange(ROWS) % 4 != 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("catalogue")
    for number in range(ROWS):
        (made / f"{number}.png").write_bytes(file_of(picture(number)))
    (made / "broken.png").write_bytes(file_of(picture(0))[:300])
    for kind in ("clip", "vit"):
        write_model(kind, made / kind)
    return made


@pytest.fixture(scope="module")
def items(folder: Path) -> pa.Table:
    """Every fifth has no image, one a broken one, one its bytes, and two have the same."""
    images: list[str | None] = [None if row % 5 == 4 else f"{row}.png" for row in range(ROWS)]
    images[1], images[2] = "broken.png", "0.png"
    images[3] = "data:;base64," + base64.b64encode((folder / "3.png").read_bytes()).decode()
    return table([f"a red square {row}" for row in range(ROWS)], images)


def table(texts: list[str], images: list[str | None]) -> pa.Table:
    n = len(texts)
    columns = {"item_id": [f"i{row}" for row in range(n)], "title": texts, "text": texts, "category": [[]] * n}
    return pa.table({**columns, "image": images}, schema=ITEMS)


def settings(folder: Path, kind: str = "clip", image: dict[str, Any] | None = None, **encoder: Any) -> EncoderConfig:
    inner = {"model": str(folder / kind), "folder": str(folder), "batch_size": 4, **(image or {})}
    # The text tower of the small model stands in for the sentence encoder too.
    values = {"model": str(folder / "clip"), "batch_size": 8, "image": inner, **encoder}
    return load_config(overrides={"encoder": values}).encoder


def test_text_alone_is_what_the_encoder_gives(items: pa.Table, folder: Path, tmp_path: Path) -> None:
    config = EncoderConfig(model=str(folder / "clip"), batch_size=8)
    texts = np.asarray(item_texts(items), dtype=object)
    expected = np.empty((ROWS, 8), dtype=np.float32)
    for group in (TRAIN, ~TRAIN):
        expected[group] = encode_texts(texts[group].tolist(), config)
    for _ in range(2):  # the second time from the cache
        found = embed_items(items, TRAIN, config, {}, device="cpu", cache=tmp_path)
        assert np.array_equal(found.embeddings, expected)
    assert found.report == {"dim": 8, "views": {"text": {"dim": 8, "weight": 1.0, "share": 1.0}}}


def test_items_without_an_image_have_their_text_with_the_gap_closed(
    items: pa.Table, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(folder, text_weight=0)
    found = embed_items(items, TRAIN, config, {}, device="cpu", cache=tmp_path)
    seen = see(items["image"].to_pylist(), item_texts(items), config)
    assert seen.text is not None
    both = seen.read & TRAIN
    gap = seen.image[both].mean(0) - seen.text[both].mean(0)
    assert np.linalg.norm(gap) > 0.3
    rows = np.where(seen.read[:, None], seen.image, seen.text + gap)
    centred = rows - rows[TRAIN].mean(0)
    expected = centred / np.sqrt(np.square(centred[TRAIN]).sum(1).mean())
    assert np.allclose(found.embeddings, expected, atol=1e-4)
    # So the two kinds have the same mean, which as they were they had not.
    shifted = seen.text[both] + gap
    assert np.allclose(shifted.mean(0), seen.image[both].mean(0), atol=1e-6)
    images = found.report["images"]
    assert images["refused"] == {"no image": 4, "truncated": 1}
    assert (images["read"], images["text_instead"], images["absent"]) == (ROWS - 5, 5, 0)
    assert images["gap"] == pytest.approx(np.linalg.norm(gap), rel=1e-4)
    assert images["examples"]["truncated"].startswith("item 'i1': broken.png: truncated")
    assert found.report["views"]["image"]["share"] == 1.0
    json.dumps(found.report)
    printed = " ".join(capsys.readouterr().err.split())
    assert "images: 19 read, 5 have their text instead (4 no image, 1 truncated)" in printed


def test_items_without_an_image_are_absent_where_the_model_reads_no_text(
    items: pa.Table, folder: Path, tmp_path: Path
) -> None:
    found = embed_items(items, TRAIN, settings(folder, "vit"), {}, device="cpu", cache=tmp_path)
    read = np.asarray([row % 5 != 4 and row != 1 for row in range(ROWS)])
    assert found.embeddings.shape == (ROWS, 8 + 16)
    assert (found.embeddings[~read, 8:] == 0).all()
    assert (np.abs(found.embeddings[read, 8:]).sum(1) > 0).all()
    images = found.report["images"]
    assert (images["read"], images["text_instead"], images["absent"], images["gap"]) == (19, 0, 5, None)
    assert found.report["views"]["image"]["share"] == pytest.approx(19 / ROWS)


@pytest.mark.parametrize("encoder", [{}, {"pca_dim": 5, "whiten": True}, {"image": {"joint": True}}])
def test_later_items_change_nothing_for_those_of_the_training(
    encoder: dict[str, Any], items: pa.Table, folder: Path, tmp_path: Path
) -> None:
    """Later items have texts and images of training items, other ones, and broken ones."""
    config = settings(folder, **encoder)
    drawn = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    config = config.model_copy(
        update={"collaborative": config.collaborative.model_copy(update={"negative_weight": 0.5})}
    )
    both = embed_items(items, TRAIN, config, {"negative": drawn}, device="cpu", cache=tmp_path / "both")
    alone = embed_items(
        items.filter(pa.array(TRAIN)),
        np.ones(TRAIN.sum(), dtype=np.bool_),
        config,
        {"negative": drawn[TRAIN]},
        device="cpu",
        cache=tmp_path / "alone",
    )
    assert np.array_equal(both.embeddings[TRAIN], alone.embeddings)
    both.fusion.save(tmp_path / "both.safetensors")
    alone.fusion.save(tmp_path / "alone.safetensors")
    assert (tmp_path / "both.safetensors").read_bytes() == (tmp_path / "alone.safetensors").read_bytes()


def test_feedback_is_fused_and_absent_for_new_items(items: pa.Table, folder: Path, tmp_path: Path) -> None:
    config = settings(folder, collaborative={"negative_weight": 0.5, "positive_weight": 2.0})
    chance = np.random.default_rng(1)
    feedback = {name: chance.normal(size=(ROWS, 3)).astype(np.float32) for name in ("positive", "negative")}
    feedback["negative"][5] = 0  # an item of which nothing is known
    found = embed_items(items, TRAIN, config, feedback, device="cpu", cache=tmp_path)
    assert list(found.report["views"]) == ["text", "image", "negative", "positive"]
    assert found.embeddings.shape == (ROWS, 8 + 8 + 3 + 3)
    squares = [np.square(found.embeddings[TRAIN][:, begin:end]).sum(1) for begin, end in ((16, 19), (19, 22))]
    assert squares[0][squares[0] > 0].mean() == pytest.approx(0.25, rel=1e-4)
    assert squares[1].mean() == pytest.approx(4, rel=1e-4)
    assert (found.embeddings[5, 16:19] == 0).all()
    assert found.report["views"]["negative"]["share"] == pytest.approx((ROWS - 1) / ROWS)
    later = embed_new(items, found.fusion, config, "cpu", tmp_path)
    assert np.allclose(later.embeddings[:, :16], found.embeddings[:, :16], atol=1e-5)
    assert (later.embeddings[:, 16:] == 0).all()
    assert later.report["views"]["positive"]["share"] == 0
    with pytest.raises(ValueError, match="weight for 'negative' and there are no such vectors"):
        embed_items(items, TRAIN, config, {}, device="cpu", cache=tmp_path)


def test_a_run_of_feedback_alone(items: pa.Table, folder: Path, tmp_path: Path) -> None:
    """It takes no new items, and where there is no feedback to speak of, none at all."""
    config = load_config(overrides={"encoder": {"text_weight": 0, "collaborative": {"negative_weight": 1.0}}}).encoder
    drawn = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    found = embed_items(items, TRAIN, config, {"negative": drawn}, device="cpu", cache=tmp_path)
    assert found.embeddings.shape == (ROWS, 3)
    with pytest.raises(ConfigError, match=r"encoder: items are embedded by negative feedback alone.*text_weight"):
        embed_new(items, found.fusion, config, "cpu", tmp_path)
    for nothing in (drawn[:, :0], np.zeros_like(drawn)):
        with pytest.raises(DataError, match=r"encoder\.collaborative: no two items were given negative feedback"):
            embed_items(items, TRAIN, config, {"negative": nothing}, device="cpu", cache=tmp_path)
    # Beside another view it says nothing, and is no matter.
    both = settings(folder, "vit", collaborative={"negative_weight": 1.0})
    beside = embed_items(items, TRAIN, both, {"negative": drawn[:, :0]}, device="cpu", cache=tmp_path)
    assert beside.embeddings.shape == (ROWS, 8 + 16)


def test_new_items_through_a_saved_fusion(items: pa.Table, folder: Path, tmp_path: Path) -> None:
    config = settings(folder, pca_dim=6)
    found = embed_items(items, TRAIN, config, {}, device="cpu", cache=tmp_path)
    found.fusion.save(tmp_path / FUSION)
    fusion = Fusion.load(tmp_path / FUSION)
    later = embed_new(items, fusion, config, "cpu", tmp_path)
    assert np.allclose(later.embeddings, found.embeddings, atol=1e-5)
    other = settings(folder, "vit", pca_dim=6)
    with pytest.raises(ArtefactError, match=r"fusion\.safetensors: the image vectors of this run are of another model"):
        embed_new(items, fusion, other, "cpu", tmp_path)
    with pytest.raises(ArtefactError, match="the image vectors of this run are of another model than None"):
        embed_new(items, fusion, EncoderConfig(model=config.model), "cpu", tmp_path)


def test_images_of_later_items_alone_are_not_compared_with_texts(folder: Path, tmp_path: Path) -> None:
    """No training item has an image, so that nothing is known of the gap: texts stand for the images of all."""
    texts = [f"a blue disc {row}" for row in range(8)]
    train = np.arange(8) < 6
    config = settings(folder, text_weight=0)
    some = embed_items(table(texts, [None] * 6 + ["1.png"] * 2), train, config, {}, device="cpu", cache=tmp_path)
    none = embed_items(table(texts, [None] * 8), train, config, {}, device="cpu", cache=tmp_path)
    assert np.array_equal(some.embeddings, none.embeddings)
    assert some.report["images"]["gap"] is None


def test_a_cache_that_runs_share(items: pa.Table, folder: Path, tmp_path: Path) -> None:
    shared = settings(folder, cache=str(tmp_path / "shared"))
    first = embed_items(items, TRAIN, shared, {}, device="cpu", cache=tmp_path / "own")
    again = embed_items(items, TRAIN, shared, {}, device="cpu", cache=tmp_path / "own")
    assert np.array_equal(first.embeddings, again.embeddings)
    assert (tmp_path / "shared" / "vectors.mdb").is_file()
    assert not (tmp_path / "own").exists()
    own = embed_items(items, TRAIN, settings(folder), {}, device="cpu", cache=tmp_path / "own")
    assert np.allclose(first.embeddings, own.embeddings, atol=1e-5)


def test_the_items_stage_with_images(items: pa.Table, folder: Path, tmp_path: Path) -> None:
    config = Config(encoder=settings(folder), rqvae=load_config(overrides={"rqvae": {"epochs": 3}}).rqvae)
    build_items(items, TRAIN, config, tmp_path / "items", seed=0)
    described = json.loads((tmp_path / "items" / "diagnostics.json").read_text())
    assert described["embedding"]["images"]["read"] == 19
    assert Fusion.load(tmp_path / "items" / FUSION).names == ("text", "image")
    assert len(read_items(tmp_path / "items")) == ROWS
    assert (tmp_path / "cache" / "vectors.mdb").is_file()


@pytest.mark.parametrize(
    ("title", "normal"),
    [
        ("Toy Story (1995)", ("toystory", "1995")),
        ("The Matrix (1999)", ("matrix", "1999")),
        ("Matrix, The (1999)", ("matrix", "1999")),
        ("Postino, Il (The Postman) (1994)", ("postino", "1994")),
        ("Nénette et Boni (1996)", ("nenetteetboni", "1996")),
        ("unknown", ("unknown", "")),
    ],
)
def test_titles_in_one_form(title: str, normal: tuple[str, str]) -> None:
    assert normal_title(title) == normal


def test_posters_are_joined_by_title_and_year() -> None:
    posters = {"7": "Matrix, The (1999)", "8": "Heat (1995)", "9": "Heat (1972)"}
    titles = ["The Matrix (1999)", "Heat (1996)", "Heat (1972)", "Heat (1950)", "Alien (1979)", "(1999)"]
    assert join_posters(titles, posters) == ["7", "8", "9", None, None, None]


def test_movielens_with_its_posters(ml100k: Loaded, tmp_path: Path) -> None:
    """The small model's weights are drawn; what is tested is that real files of all kinds find their way."""
    where = os.environ.get("CONREC_POSTERS")
    if not where:
        pytest.skip("CONREC_POSTERS names no folder with posters.csv and the posters, MOVIE_ID.jpg")
    posters = Path(where).resolve()
    joined = join_posters(ml100k.items["title"].to_pylist(), read_posters(posters))
    paths = [None if movie is None else poster_of(posters, movie) for movie in joined]
    names = [None if path is None else path.name for path in paths]
    assert sum(name is not None for name in names) > 1350
    items = ml100k.items.set_column(4, "image", pa.array(names, pa.string()))
    write_model("clip", tmp_path / "clip")
    config = settings(tmp_path, image={"folder": str(posters), "batch_size": 32}, batch_size=64)
    train = np.arange(len(items)) % 10 != 0
    found = embed_items(items, train, config, {}, device="cpu", cache=tmp_path / "cache")
    images = found.report["images"]
    assert images["read"] + images["text_instead"] == len(items)
    assert images["read"] > 1350
    assert set(images["refused"]) == {"no image"}
    assert np.isfinite(found.embeddings).all()
    again = embed_items(items, train, config, {}, device="cpu", cache=tmp_path / "cache")
    assert np.array_equal(again.embeddings, found.embeddings)

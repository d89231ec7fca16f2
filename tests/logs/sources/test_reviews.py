"""Amazon 2023, Steam, board games and Ciao in small, and the real tables where $CONREC_TEST_DATA names their folder."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.config import DataConfig, FeedbackRule
from conrec.errors import ConfigError, DataError
from conrec.logs.sources import load, source_files

REAL = os.environ.get("CONREC_TEST_DATA", "")
MS = 1588687728923
REVIEWS = [
    {"rating": 5.0, "title": "Nice", "text": "I like it", "images": [], "asin": "B00YQ6X8EO",
     "parent_asin": "B00YQ6X8EO",
     "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": MS, "helpful_vote": 0, "verified_purchase": True},
    {"rating": 1.0, "title": "No", "text": "", "images": [{"small_image_url": "x"}], "asin": "B1", "parent_asin": "B2",
     "user_id": "AG2", "timestamp": MS + 5000, "helpful_vote": 3, "verified_purchase": False},
    {"rating": 3.0, "title": "So", "text": "", "images": [], "asin": "B1", "parent_asin": "B404", "user_id": "AG2",
     "timestamp": MS, "helpful_vote": 3, "verified_purchase": False},
]  # fmt: skip
META = [
    {"main_category": "All Beauty", "title": "Howard Spray", "average_rating": 4.8, "rating_number": 10,
     "features": ["Non toxic"], "description": ["A spray.", ""], "price": None,
     "images": [{"thumb": "https://x/t0.jpg", "large": "https://x/l0.jpg", "variant": "PT01", "hi_res": None},
                {"thumb": "https://x/t.jpg", "large": "https://x/l.jpg", "variant": "MAIN", "hi_res": None}],
     "videos": [], "store": "Howard", "categories": [], "details": {"Upc": "1"}, "parent_asin": "B00YQ6X8EO",
     "bought_together": None},
    {"main_category": "All Beauty", "title": "Brush", "average_rating": 4.8, "rating_number": 10, "features": [],
     "description": [], "price": "6.99", "images": [], "videos": [], "store": "S", "categories": ["Beauty", "Brushes"],
     "details": {}, "parent_asin": "B2", "bought_together": None},
]  # fmt: skip


def lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_amazon_2023(tmp_path: Path) -> None:
    (tmp_path / "All_Beauty.jsonl.gz").write_bytes(gzip.compress(lines(REVIEWS)))
    (tmp_path / "meta_All_Beauty.jsonl").write_bytes(lines(META))
    config = DataConfig(source="amazon-2023", folder=tmp_path)
    loaded = load(config)
    assert loaded.events.to_pylist() == [
        {"user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "item_id": "B00YQ6X8EO", "timestamp": MS // 1000, "feedback": 1},
        {"user_id": "AG2", "item_id": "B2", "timestamp": MS // 1000 + 5, "feedback": -1},
    ]
    assert loaded.counts.events.refused == {"unknown item": 1}
    assert loaded.counts.events.examples["unknown item"].startswith("line 3: item 'B404'")
    assert loaded.items.to_pylist() == [
        {
            "item_id": "B00YQ6X8EO",
            "title": "Howard Spray",
            "text": "Howard Spray. All Beauty. A spray. Non toxic.",
            "category": ["All Beauty"],
            "image": "https://x/l.jpg",
        },
        {
            "item_id": "B2",
            "title": "Brush",
            "text": "Brush. Beauty, Brushes.",
            "category": ["Beauty", "Brushes"],
            "image": None,
        },
    ]
    assert [one.name for one in source_files(config)] == list(loaded.hashes)


def test_amazon_ratings_alone(tmp_path: Path) -> None:
    (tmp_path / "All_Beauty.csv").write_text(
        f"user_id,parent_asin,rating,timestamp\nAG1,B2,2.0,{MS}\nAG1,B00YQ6X8EO,3.0,{MS}\nAG3,B2,4.0,{MS}\nAG3,B2,,{MS}\n"
    )
    (tmp_path / "meta_All_Beauty.jsonl.gz").write_bytes(gzip.compress(lines(META)))
    loaded = load(DataConfig(source="amazon-2023", folder=tmp_path))
    assert loaded.events["feedback"].to_pylist() == [-1, 0, 1]
    assert loaded.counts.events.refused == {"rating not a number": 1}


def test_amazon_where_a_line_has_another_type(tmp_path: Path) -> None:
    odd = [*REVIEWS, {**REVIEWS[0], "rating": "five", "user_id": 17}]
    (tmp_path / "All_Beauty.jsonl").write_bytes(lines(odd))
    (tmp_path / "meta_All_Beauty.jsonl").write_bytes(lines(META))
    loaded = load(DataConfig(source="amazon-2023", folder=tmp_path))
    assert loaded.counts.events.refused == {"rating not a number": 1, "unknown item": 1}


def test_amazon_wants_one_category(tmp_path: Path) -> None:
    (tmp_path / "All_Beauty.jsonl").write_bytes(lines(REVIEWS))
    with pytest.raises(DataError, match="holds no category"):
        load(DataConfig(source="amazon-2023", folder=tmp_path))
    for name in ("All_Beauty", "Books"):
        (tmp_path / f"meta_{name}.jsonl").write_bytes(lines(META))
        (tmp_path / f"{name}.jsonl").write_bytes(lines(REVIEWS))
    config = DataConfig(source="amazon-2023", folder=tmp_path)
    with pytest.raises(DataError, match=r"meta_All_Beauty\.jsonl and meta_Books\.jsonl"):
        load(config)
    assert source_files(config) == []


def test_amazon_broken_archive(tmp_path: Path) -> None:
    (tmp_path / "All_Beauty.jsonl.gz").write_bytes(gzip.compress(lines(REVIEWS))[:-20])
    (tmp_path / "meta_All_Beauty.jsonl").write_bytes(lines(META))
    with pytest.raises(DataError, match=r"All_Beauty\.jsonl\.gz: is not a whole gzip file"):
        load(DataConfig(source="amazon-2023", folder=tmp_path))


def write_steam(folder: Path) -> None:
    folder.joinpath("recommendations.csv").write_text(
        "app_id,helpful,funny,date,is_recommended,hours,user_id,review_id\n"
        "975370,0,0,2022-12-12,True,36.3,51580,0\n"
        "304390,4,0,2017-02-17,False,11.5,2586,1\n"
        "304390,4,0,2017-02-29,False,11.5,2587,2\n"
        "975370,4,0,2017-02-17,maybe,11.5,2588,3\n"
        "1,4,0,2017-02-17,True,11.5,2588,4\n"
        "304390,4,0,2017-02-18,True,11.5,2589,5\n"
    )
    folder.joinpath("games.csv").write_text(
        "app_id,title,date_release,win,mac,linux,rating,positive_ratio,user_reviews,price_final,price_original,discount,"
        "steam_deck\n"
        '975370,"Dwarf Fortress, again",2022-12-06,true,false,false,Positive,95,20000,29.99,29.99,0.0,true\n'
        "304390,FOR HONOR™,2017-02-13,true,false,false,Mixed,68,76071,0.0,0.0,0.0,true\n",
        encoding="utf-8",
    )
    folder.joinpath("games_metadata.json").write_bytes(
        lines(
            [
                {"app_id": 304390, "description": "Carve a path.", "tags": ["Medieval", "Swordplay"]},
                {"app_id": 7, "description": "", "tags": []},
            ]
        )
    )


def test_steam(tmp_path: Path) -> None:
    write_steam(tmp_path)
    config = DataConfig(source="steam", folder=tmp_path)
    loaded = load(config)
    assert loaded.events.to_pylist() == [
        {"user_id": "51580", "item_id": "975370", "timestamp": 1670803200, "feedback": 1},
        {"user_id": "2586", "item_id": "304390", "timestamp": 1487289600, "feedback": -1},
        {"user_id": "2589", "item_id": "304390", "timestamp": 1487376000, "feedback": 1},
    ]
    assert loaded.items["text"].to_pylist() == [
        "Dwarf Fortress, again.",
        "FOR HONOR™. Medieval, Swordplay. Carve a path.",
    ]
    assert loaded.counts.events.refused == {
        "timestamp not readable": 1,
        "event name not listed": 1,
        "unknown item": 1,
    }
    assert len(source_files(config)) == len(loaded.hashes) == 3
    (tmp_path / "games_metadata.json").unlink()
    assert load(config).items["text"].to_pylist() == ["Dwarf Fortress, again.", "FOR HONOR™."]
    assert len(source_files(config)) == 2


def test_board_games(tmp_path: Path) -> None:
    text = pa.large_string()
    ratings = pa.table(
        {
            "user_id": pa.array(["29619", "29963", "29963", None], text),
            "item_id": pa.array(["822", "41", "822", "41"], text),
            "rating": [5.0, 8.0, 6.5, 1.0],
            "timestamp": [988675200, 988675200, 991353600, 991353600],
        }
    )
    games = pa.table(
        {
            "item_id": pa.array(["822", "41"], text),
            "title": pa.array(["Carcassonne", "Can't Stop"], text),
            "year": [2000, 1980],
            "categories": pa.array(["City Building|Medieval", "Dice"], text),
            "description": pa.array(["Tiles.", None], text),
        }
    )
    pq.write_table(ratings, tmp_path / "ratings.parquet")
    pq.write_table(games, tmp_path / "games.parquet")
    config = DataConfig(source="board-games", folder=tmp_path)
    loaded = load(config)
    assert loaded.events["feedback"].to_pylist() == [-1, 1, 0]
    assert loaded.counts.events.refused == {"empty user id": 1}
    assert loaded.items["text"].to_pylist() == ["Carcassonne. City Building, Medieval. Tiles.", "Can't Stop. Dice."]
    assert [one.name for one in source_files(config)] == ["ratings.parquet", "games.parquet"]
    rule = FeedbackRule(negative_at_most=6.5)
    assert load(config.model_copy(update={"feedback": rule})).events["feedback"].to_pylist() == [-1, 1, -1]


def test_ciao(tmp_path: Path) -> None:
    ratings = pa.table(
        {
            "user_id": ["6119", "6119", "6094", "6094"],
            "item_id": ["92579", "77965", "92579", None],
            "category_id": [24, 4, 24, 4],
            "rating": [5, 2, 3, 1],
            "timestamp": [959670000, 959756400, 959756400, 959756400],
        }
    )
    pq.write_table(ratings, tmp_path / "ratings.parquet")
    config = DataConfig(source="ciao", folder=tmp_path)
    loaded = load(config)
    assert loaded.events["feedback"].to_pylist() == [1, -1, 0]
    assert loaded.counts.events.refused == {"empty item id": 1}
    assert loaded.items.select(["item_id", "text", "category"]).to_pylist() == [
        {"item_id": "92579", "text": "category 24.", "category": ["category 24"]},
        {"item_id": "77965", "text": "category 4.", "category": ["category 4"]},
    ]
    assert loaded.counts.items.file == "items of ratings.parquet"
    assert list(loaded.hashes) == ["ratings.parquet"]


def test_a_folder_is_asked_for() -> None:
    for name in ("board-games", "ciao", "steam", "amazon-2023"):
        assert source_files(DataConfig(source=name)) == []
        with pytest.raises(ConfigError, match=r"data\.folder: .*expected a folder with"):
            load(DataConfig(source=name))


@pytest.mark.skipif(not REAL, reason="CONREC_TEST_DATA does not name a folder with boardgames and ciao")
def test_the_real_tables() -> None:
    games = load(DataConfig(source="board-games", folder=Path(REAL) / "boardgames"))
    counts = games.counts.events
    assert (counts.rows, counts.kept) == (1_452_629, 1_452_599)
    assert counts.refused == {"contradicting event": 13, "duplicate event": 17}
    assert games.events["feedback"].to_pylist().count(-1) == 129_255
    assert games.items.num_rows == 901
    ciao = load(DataConfig(source="ciao", folder=Path(REAL) / "ciao"))
    assert (ciao.counts.events.rows, ciao.counts.events.kept) == (284_052, 283_694)
    assert ciao.events["feedback"].to_pylist().count(-1) == 25_341
    assert ciao.items.num_rows == 105_096

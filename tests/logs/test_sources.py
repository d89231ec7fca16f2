"""The sources: exact formats in small, the real ML-100K, and anybody's own table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.config import DataConfig, EventColumns, FeedbackRule, ItemColumns
from conrec.errors import ConfigError, DataError
from conrec.logs.schema import EVENTS, ITEMS
from conrec.logs.sources import SOURCES, Loaded, describe, fetch, load, ml100k, movietweetings, source_files
from conrec.logs.sources.ml100k import GENRES

RATINGS = [("196", "1", 3, 881250949), ("186", "34", 1, 891717742), ("196", "267", 5, 881250949)]


def grouplens(folder: Path) -> None:
    """Two rows in the format of u.data and three in that of u.item."""
    folder.joinpath("u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS))
    url = "http://us.imdb.com/M/title-exact?x"
    films = [
        ("1", "Toy Story (1995)", "01-Jan-1995", url, {"Animation", "Children's", "Comedy"}),
        ("34", "Doom Generation, The (1995)", "01-Jan-1995", url, {"Comedy", "Drama"}),
        ("267", "unknown", "", "", {"unknown"}),
        ("543", "Misérables, Les (1995)", "01-Jan-1995", url, {"Drama", "Musical"}),
    ]
    lines = [
        "|".join([i, title, day, "", link, *("1" if one in genres else "0" for one in GENRES)])
        for i, title, day, link, genres in films
    ]
    folder.joinpath("u.item").write_bytes(("\n".join(lines) + "\n").encode("latin-1"))


def recbole(folder: Path) -> None:
    """The same in the format of ml-100k.inter and ml-100k.item."""
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    folder.joinpath("ml-100k.inter").write_text(head + "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS))
    folder.joinpath("ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n"
        "34\tDoom Generation, The\t1995\tComedy Drama\n"
        "267\tunkonwn\tunkonwn\tunknown\n"
        "543\tMisérables, Les\t1995\tDrama Musical\n",
        encoding="utf-8",
    )


@pytest.mark.parametrize("write", [grouplens, recbole])
def test_both_formats_of_ml100k_are_one_log(tmp_path: Path, write: Any) -> None:
    write(tmp_path)
    loaded = load(DataConfig(source="ml-100k", folder=tmp_path))
    assert loaded.events.schema == EVENTS
    assert loaded.items.schema == ITEMS
    assert loaded.events.to_pylist() == [
        {"user_id": "196", "item_id": "1", "timestamp": 881250949, "feedback": 0},
        {"user_id": "186", "item_id": "34", "timestamp": 891717742, "feedback": -1},
        {"user_id": "196", "item_id": "267", "timestamp": 881250949, "feedback": 1},
    ]
    assert [(one["item_id"], one["title"], one["category"], one["text"]) for one in loaded.items.to_pylist()] == [
        ("1", "Toy Story (1995)", ["Animation", "Children's", "Comedy"],
         "Toy Story (1995). Animation, Children's, Comedy."),
        ("34", "Doom Generation, The (1995)", ["Comedy", "Drama"], "Doom Generation, The (1995). Comedy, Drama."),
        ("267", "unknown", [], "unknown."),
        ("543", "Misérables, Les (1995)", ["Drama", "Musical"], "Misérables, Les (1995). Drama, Musical."),
    ]  # fmt: skip
    assert sorted(loaded.hashes) == sorted(one.name for one in tmp_path.iterdir())


def test_a_year_that_stands_in_the_title_is_not_written_twice(tmp_path: Path) -> None:
    recbole(tmp_path)
    with (tmp_path / "ml-100k.item").open("a") as out:
        out.write("1412\tLand Before Time III (1995)\tV\tAnimation\n")
    assert load(DataConfig(folder=tmp_path)).items["title"].to_pylist()[-1] == "Land Before Time III (1995)"


def test_thresholds_can_be_moved(tmp_path: Path) -> None:
    grouplens(tmp_path)
    rule = FeedbackRule(negative_at_most=3, positive_at_least=5)
    assert load(DataConfig(folder=tmp_path, feedback=rule)).events["feedback"].to_pylist() == [-1, -1, 1]


def test_one_threshold_alone_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    grouplens(tmp_path)
    for rule, expected in (({"negative_at_most": 3}, [-1, -1, 1]), ({"positive_at_least": 3}, [1, -1, 1]),
                           ({"reasons": {"x": "drop"}}, [0, -1, 1])):  # fmt: skip
        config = DataConfig(folder=tmp_path, feedback=FeedbackRule.model_validate(rule))
        assert load(config).events["feedback"].to_pylist() == expected
    with pytest.raises(ConfigError, match=r"positive_at_least 4.0 is not above negative_at_most 4.0"):
        load(DataConfig(folder=tmp_path, feedback=FeedbackRule(negative_at_most=4)))


def test_files_of_a_source(tmp_path: Path) -> None:
    empty = tmp_path / "cache"
    for name in ("ml-100k", "movietweetings", "table"):
        assert source_files(DataConfig(source=name, cache=empty)) == []
        assert source_files(DataConfig(source=name, folder=tmp_path / "none")) == []
    assert not empty.exists()
    cached = empty / "ml-100k"
    cached.mkdir(parents=True)
    recbole(cached)
    expected = [cached / "ml-100k.inter", cached / "ml-100k.item"]
    assert source_files(DataConfig(cache=empty)) == expected
    grouplens(tmp_path)
    assert source_files(DataConfig(folder=tmp_path)) == [tmp_path / "u.data", tmp_path / "u.item"]
    tweets(tmp_path)
    config = DataConfig(source="movietweetings", folder=tmp_path)
    assert [one.name for one in source_files(config)] == ["ratings.dat", "movies.dat"]
    config = own(tmp_path, "csv")
    assert source_files(config) == [config.events, config.items]
    assert {one.name for one in source_files(config)} == set(load(config).hashes)
    assert source_files(config.model_copy(update={"items": tmp_path / "none.csv"})) == [config.events]
    with pytest.raises(ConfigError, match="no source"):
        source_files(DataConfig(source="none"))


def test_the_real_ml100k(ml100k: Loaded) -> None:
    feedback = ml100k.events["feedback"].to_pylist()
    assert (len(feedback), feedback.count(-1), feedback.count(1)) == (100_000, 17_480, 55_375)
    assert ml100k.events.slice(0, 1).to_pylist() == [
        {"user_id": "196", "item_id": "242", "timestamp": 881250949, "feedback": 0}
    ]
    assert ml100k.items.num_rows == 1682
    assert ml100k.items["title"][0].as_py() == "Toy Story (1995)"
    assert ml100k.items["category"][0].as_py() == ["Animation", "Children's", "Comedy"]
    assert ml100k.counts.events.refused == {}
    assert ml100k.counts.items.refused == {}


def test_ml100k_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(ml100k, "ORIGINS", ml100k.ORIGINS[1:])
    with pytest.raises(DataError, match=r"'ml-100k': could not be fetched.*recbole 1.2.1.*data\.folder"):
        load(DataConfig(cache=tmp_path))
    with pytest.raises(DataError, match=r"u\.data and u\.item or ml-100k\.inter"):
        load(DataConfig(folder=tmp_path))
    with pytest.raises(DataError, match=r"data\.folder.*does not exist"):
        load(DataConfig(folder=tmp_path / "none"))


def tweets(folder: Path) -> None:
    folder.joinpath("ratings.dat").write_text(
        "1::0054890::9::1381945744\n2::1408101::5::1382400295\n2::0054890::6::7\n"
    )
    folder.joinpath("movies.dat").write_text(
        "0054890::Fantômas: À l'ombre (1913)::Crime|Drama\n1408101::Star Trek (2013)::\n", encoding="utf-8"
    )


def test_movietweetings(tmp_path: Path) -> None:
    tweets(tmp_path)
    loaded = load(DataConfig(source="movietweetings", folder=tmp_path))
    assert loaded.events.to_pylist() == [
        {"user_id": "1", "item_id": "0054890", "timestamp": 1381945744, "feedback": 1},
        {"user_id": "2", "item_id": "1408101", "timestamp": 1382400295, "feedback": -1},
    ]
    assert loaded.items["category"].to_pylist() == [["Crime", "Drama"], []]
    assert loaded.items["text"].to_pylist() == ["Fantômas: À l'ombre (1913). Crime, Drama.", "Star Trek (2013)."]
    assert loaded.counts.events.refused == {"timestamp before 1990 or in the future": 1}
    assert "line 3" in loaded.counts.events.examples["timestamp before 1990 or in the future"]


def test_movietweetings_is_fetched_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    tweets(site)
    origin = movietweetings.from_url({name: (site / name).as_uri() for name in movietweetings.FILES})
    monkeypatch.setattr(movietweetings, "ORIGINS", (origin,))
    config = DataConfig(source="movietweetings", cache=tmp_path / "cache")
    assert fetch("movietweetings", config) == tmp_path / "cache" / "movietweetings"
    assert load(config).events.num_rows == 2


def own(folder: Path, kind: str) -> DataConfig:
    """The same small log in every format of a table source."""
    events = [
        {"who": "a", "what": "x", "when": 1381945744, "stars": 1},
        {"who": "b", "what": "y", "when": 1381945745, "stars": 5},
    ]
    items = [{"what": "x", "name": "X", "kind": "k|l"}, {"what": "y", "name": "Y", "kind": ""}]
    for name, rows in (("events", events), ("items", items)):
        path = folder / f"{name}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            separator = {"csv": ",", "tsv": "\t", "dat": "::"}[kind]
            lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(separator.join(line) for line in lines))
    return DataConfig(
        source="table",
        events=folder / f"events.{kind}",
        items=folder / f"items.{kind}",
        separator="::" if kind == "dat" else None,
        columns=EventColumns(user_id="who", item_id="what", timestamp="when", rating="stars"),
        item_columns=ItemColumns(item_id="what", title="name", category="kind"),
        feedback=FeedbackRule(negative_at_most=2, positive_at_least=4),
    )


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv", "dat"])
def test_a_table_in_every_format(tmp_path: Path, kind: str) -> None:
    loaded = load(own(tmp_path, kind))
    assert loaded.events.to_pylist() == [
        {"user_id": "a", "item_id": "x", "timestamp": 1381945744, "feedback": -1},
        {"user_id": "b", "item_id": "y", "timestamp": 1381945745, "feedback": 1},
    ]
    assert loaded.items["text"].to_pylist() == ["X. k, l.", "Y."]


def test_movietweetings_through_table_is_the_same_log(tmp_path: Path) -> None:
    tweets(tmp_path)
    config = DataConfig(
        source="table",
        events=tmp_path / "ratings.dat",
        items=tmp_path / "movies.dat",
        separator="::",
        header=["user_id", "item_id", "rating", "timestamp"],
        items_header=["item_id", "title", "category"],
        item_columns=ItemColumns(category="category"),
        feedback=FeedbackRule(negative_at_most=5, positive_at_least=8),
    )
    ours, theirs = load(config), load(DataConfig(source="movietweetings", folder=tmp_path))
    assert ours.events.equals(theirs.events)
    assert ours.items.equals(theirs.items)
    assert ours.counts == theirs.counts


def test_each_file_may_have_its_own_separator(tmp_path: Path) -> None:
    config = own(tmp_path, "csv")
    (tmp_path / "items.csv").write_text("what;name;kind\nx;X;k\ny;Y;\n")
    assert load(config.model_copy(update={"items_separator": ";"})).items.num_rows == 2


def test_a_missing_column_names_the_section_that_maps_it(tmp_path: Path) -> None:
    config = own(tmp_path, "csv")
    with pytest.raises(DataError, match=r"items\.csv, line 1: has no column 'title'.*\[data\.item_columns\]"):
        load(config.model_copy(update={"item_columns": ItemColumns(item_id="what")}))
    with pytest.raises(DataError, match=r"events\.csv, line 1: has no column 'user_id'.*\[data\.columns\]"):
        load(config.model_copy(update={"columns": EventColumns(rating="stars")}))


def test_two_files_that_disagree_show_an_id_of_each(tmp_path: Path) -> None:
    config = own(tmp_path, "csv")
    (tmp_path / "items.csv").write_text("what,name,kind\n007,X,\n008,Y,\n")
    with pytest.raises(
        DataError, match=r"2 unknown item.*item 'x' is not in the items file \(which begins with '007'\)"
    ):
        load(config)


def test_a_table_needs_both_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.items"):
        load(own(tmp_path, "csv").model_copy(update={"items": None}))


def test_sources_are_described() -> None:
    names = [one.name for one in describe()]
    assert names == list(SOURCES)
    assert (names[0], names[-1], len(names)) == ("ml-100k", "table", 16)
    assert all(getattr(one, field) for one in describe() for field in ("what", "size", "rule", "licence", "settings"))
    with pytest.raises(ConfigError, match=r"no source 'ml100k'.*Did you mean 'ml-100k'"):
        load(DataConfig(source="ml100k"))
    with pytest.raises(ConfigError, match="your own data"):
        fetch("table", DataConfig())

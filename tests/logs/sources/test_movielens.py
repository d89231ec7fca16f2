"""MovieLens editions: their exact formats in small, and their archives."""

from __future__ import annotations

import gzip
import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from conrec.config import DataConfig, FeedbackRule
from conrec.errors import DataError
from conrec.logs.fetch import from_zip
from conrec.logs.schema import EVENTS, ITEMS
from conrec.logs.sources import fetch, load, movielens, source_files

CSV_EDITIONS = [one.name for one in movielens.EDITIONS if one.files[0] == "ratings.csv"]


def write_1m(folder: Path) -> None:
    """Three ratings and three films in the format of MovieLens-1M."""
    folder.joinpath("ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n2::1193::2::978298413\n")
    lines = (
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
        "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
        "73::Misérables, Les (1995)::Drama|Musical\n"
    )
    folder.joinpath("movies.dat").write_bytes(lines.encode("latin-1"))


def write_csv(folder: Path) -> None:
    """Ratings with half stars and films in the format of the later editions."""
    folder.joinpath("ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,0.5,1112484676\n2,29,4.0,974820889\n"
        "2,2,2.5,974820889\n3,2,2.0,974820890\n3,99,2.0,974820890\n4,2,x,974820890\n"
    )
    folder.joinpath("movies.csv").write_text(
        "movieId,title,genres\n"
        '2,"City of Lost Children, The (Cité des enfants perdus, La) (1995)",Adventure|Drama\n'
        '29,"""Great Performances"" Cats (1998)",(no genres listed)\n',
        encoding="utf-8",
    )


def test_1m(tmp_path: Path) -> None:
    write_1m(tmp_path)
    loaded = load(DataConfig(source="ml-1m", folder=tmp_path))
    assert loaded.name == "ml-1m"
    assert loaded.events.schema == EVENTS
    assert loaded.items.schema == ITEMS
    assert loaded.events.to_pylist() == [
        {"user_id": "1", "item_id": "1193", "timestamp": 978300760, "feedback": 1},
        {"user_id": "1", "item_id": "661", "timestamp": 978302109, "feedback": 0},
        {"user_id": "2", "item_id": "1193", "timestamp": 978298413, "feedback": -1},
    ]
    assert loaded.items["title"].to_pylist()[2] == "Misérables, Les (1995)"
    assert loaded.items["category"].to_pylist()[0] == ["Animation", "Children's", "Musical"]
    assert sorted(loaded.hashes) == ["movies.dat", "ratings.dat"]


@pytest.mark.parametrize("name", CSV_EDITIONS)
def test_the_editions_as_csv(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path)
    loaded = load(DataConfig(source=name, folder=tmp_path))
    assert [(one["user_id"], one["item_id"], one["feedback"]) for one in loaded.events.to_pylist()] == [
        ("1", "2", 0),
        ("1", "29", -1),
        ("2", "29", 1),
        ("2", "2", 0),
        ("3", "2", -1),
    ]
    assert loaded.items["title"].to_pylist() == [
        "City of Lost Children, The (Cité des enfants perdus, La) (1995)",
        '"Great Performances" Cats (1998)',
    ]
    assert loaded.items["category"].to_pylist() == [["Adventure", "Drama"], []]
    counts = loaded.counts.events
    assert (counts.rows, counts.kept) == (7, 5)
    assert counts.refused == {"unknown item": 1, "rating not a number": 1}
    assert counts.examples["rating not a number"] == "line 8: rating = 'x'"


def test_a_threshold_of_half_a_star(tmp_path: Path) -> None:
    write_csv(tmp_path)
    rule = FeedbackRule(negative_at_most=2.5, positive_at_least=3.5)
    loaded = load(DataConfig(source="ml-32m", folder=tmp_path, feedback=rule))
    assert loaded.events["feedback"].to_pylist() == [1, -1, 1, -1, -1]


def test_packed_files_are_read_as_they_are(tmp_path: Path) -> None:
    write_csv(tmp_path)
    plain = load(DataConfig(source="ml-25m", folder=tmp_path))
    ratings = tmp_path / "ratings.csv"
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(ratings.read_bytes()))
    ratings.unlink()
    config = DataConfig(source="ml-25m", folder=tmp_path)
    assert [one.name for one in source_files(config)] == ["ratings.csv.gz", "movies.csv"]
    packed = load(config)
    assert packed.events.equals(plain.events)
    assert packed.counts.events.examples == plain.counts.events.examples


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    write_1m(tmp_path)
    with pytest.raises(DataError, match=r"lacks one of the files; expected ratings\.csv and movies\.csv"):
        load(DataConfig(source="ml-20m", folder=tmp_path))
    assert source_files(DataConfig(source="ml-20m", folder=tmp_path)) == []
    assert source_files(DataConfig(source="ml-20m", cache=tmp_path)) == []


def test_an_archive_is_checked_and_fetched_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    write_csv(site)
    archive = tmp_path / "ml-20m.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name in ("ratings.csv", "movies.csv"):
            out.write(site / name, f"ml-20m/{name}")
        out.writestr("ml-20m/tags.csv", "not wanted")

    def local(_: str, members: dict[str, str], checksum: str) -> object:
        return from_zip(archive.as_uri(), members, checksum)

    monkeypatch.setattr(movielens, "from_zip", local)
    (edition,) = [one for one in movielens.EDITIONS if one.name == "ml-20m"]
    config = DataConfig(source="ml-20m", cache=tmp_path / "cache")
    with pytest.raises(DataError, match="has the md5 checksum"):
        fetch("ml-20m", config)
    true = replace(edition, md5=hashlib.md5(archive.read_bytes()).hexdigest())
    folder = movielens.fetch(true, config)
    assert sorted(one.name for one in folder.iterdir()) == ["fetched.json", "movies.csv", "ratings.csv"]
    assert movielens.load(true, config).events.num_rows == 5
    assert [one.name for one in source_files(config)] == ["ratings.csv", "movies.csv"]


def test_only_the_editions_that_change_have_no_checksum() -> None:
    assert [one.name for one in movielens.EDITIONS if not one.md5] == ["ml-latest", "ml-latest-small"]
    assert all(len(one.md5) in (0, 32) for one in movielens.EDITIONS)

"""KuaiRand, Yambda and MIND in small: exact formats, rules, bad rows."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.config import DataConfig, FeedbackRule
from conrec.errors import ConfigError, DataError
from conrec.logs.fetch import from_tar
from conrec.logs.sources import fetch, kuairand, load, source_files
from conrec.logs.sources.yambda import START

LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
    "music_id,music_type,tag\n"
    '10,123,NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,9155697141,9.0,"12,65"\n'
    "20,456,AD,2022-04-10,Kmovie,0.0,218066.0,720.0,1280.0,6355810746,9.0,39\n"
    "30,789,NORMAL,2022-04-09,ShortImport,0.0,,720.0,1280.0,6618412736,4.0,\n"
)


def shown(user: int, video: int, ms: int, like: object = 0, hate: object = 0, long: object = 0) -> str:
    """One row of a KuaiRand log."""
    return f"{user},{video},20220411,1900,{ms},1,{like},0,0,0,{hate},{long},1385,209900,0,0,0,0,1\n"


def write_kuairand(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("log_standard_4_08_to_4_21_pure.csv").write_text(
        LOG + shown(0, 10, 1649675512388) + shown(0, 20, 1650111976017, hate=1, like=1) + shown(1, 10, 5)
    )
    folder.joinpath("log_standard_4_22_to_5_08_pure.csv").write_text(
        LOG
        + shown(1, 30, 1650700000000, long=1)
        + shown(1, 20, 1650700001000, like=1)
        + shown(1, 20, 1650700002000, hate=2)
    )
    folder.joinpath("log_random_4_22_to_5_08_pure.csv").write_text(LOG + shown(0, 30, 1650800000999))
    folder.joinpath("video_features_basic_pure.csv").write_text(VIDEOS)


def test_kuairand(tmp_path: Path) -> None:
    write_kuairand(tmp_path / "data")
    config = DataConfig(source="kuairand", folder=tmp_path)
    loaded = load(config)
    assert loaded.events.to_pylist() == [
        {"user_id": "0", "item_id": "30", "timestamp": 1650800000, "feedback": 0},
        {"user_id": "0", "item_id": "10", "timestamp": 1649675512, "feedback": 0},
        {"user_id": "0", "item_id": "20", "timestamp": 1650111976, "feedback": -1},
        {"user_id": "1", "item_id": "30", "timestamp": 1650700000, "feedback": 1},
        {"user_id": "1", "item_id": "20", "timestamp": 1650700001, "feedback": 1},
    ]
    assert loaded.items["text"].to_pylist() == [
        "Tags 12, 65. Type NORMAL. Author 123.",
        "Tags 39. Type AD. Author 456.",
        "Type NORMAL. Author 789.",
    ]
    assert loaded.items["category"].to_pylist() == [["tag 12", "tag 65"], ["tag 39"], []]
    counts = loaded.counts.events
    assert (counts.rows, counts.kept) == (7, 5)
    assert counts.refused == {"timestamp before 1990 or in the future": 1, "event name not listed": 1}
    assert (
        counts.examples["event name not listed"] == "log_standard_4_22_to_5_08_pure.csv, line 4: event = 'is_hate = 2'"
    )
    assert [one.name for one in source_files(config)] == list(loaded.hashes)
    assert len(loaded.hashes) == 4


def test_kuairand_without_the_random_files_is_a_log_without_their_rows(tmp_path: Path) -> None:
    write_kuairand(tmp_path)
    config = DataConfig(source="kuairand", folder=tmp_path)
    whole = load(config).counts.events.rows
    (random,) = tmp_path.glob("log_random_*.csv")
    rows = len(random.read_text().splitlines()) - 1
    random.unlink()
    assert load(config).counts.events.rows == whole - rows < whole


def test_kuairand_by_another_rule(tmp_path: Path) -> None:
    write_kuairand(tmp_path)
    rule = FeedbackRule(events={"long_view": 0, "exposure": 1})
    loaded = load(DataConfig(source="kuairand", folder=tmp_path, feedback=rule))
    assert loaded.events["feedback"].to_pylist() == [1, 1, -1, 0, 1]


def test_kuairand_is_fetched_without_what_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kuairand(tmp_path / "made")
    archive = tmp_path / "pure.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        for name in kuairand.PURE:
            out.add(tmp_path / "made" / name, f"KuaiRand-Pure/data/{name}")
        out.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    members = {f"KuaiRand-Pure/data/{name}": name for name in kuairand.PURE}
    monkeypatch.setattr(kuairand, "ORIGINS", (from_tar(archive.as_uri(), members, ""),))
    config = DataConfig(source="kuairand", cache=tmp_path / "cache")
    folder = fetch("kuairand", config)
    assert sorted(one.name for one in folder.iterdir()) == ["fetched.json", *kuairand.PURE]
    assert load(config).events.num_rows == 5


def test_kuairand_needs_logs_and_videos(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks logs or videos; expected log_random_\*\.csv"):
        load(DataConfig(source="kuairand", folder=tmp_path))
    with pytest.raises(DataError, match="does not exist"):
        load(DataConfig(source="kuairand", folder=tmp_path / "none"))
    assert source_files(DataConfig(source="kuairand", folder=tmp_path / "none")) == []


def event_table(rows: list[tuple[int, int, int]], played: list[int | None] | None = None) -> pa.Table:
    """Rows of (uid, timestamp, item) in the types of Yambda's flat files."""
    uid, time, item = zip(*rows, strict=True)
    small = pa.uint32()
    columns = {"uid": pa.array(uid, small), "timestamp": pa.array(time, small), "item_id": pa.array(item, small)}
    columns["is_organic"] = pa.array([1] * len(rows), pa.uint8())
    if played is not None:
        columns["played_ratio_pct"] = pa.array(played, pa.uint16())
        columns["track_length_seconds"] = pa.array([200] * len(rows), small)
    return pa.table(columns)


LISTENS = ([(30, 0, 7), (30, 5, 8), (40, 10, 7), (40, 15, 9)], [100, 50, 51, None])


def write_yambda(folder: Path) -> None:
    pq.write_table(event_table(*LISTENS), folder / "listens.parquet")
    pq.write_table(event_table([(30, 100, 7), (40, 105, 8)]), folder / "likes.parquet")
    pq.write_table(event_table([(30, 200, 8), (40, 205, 9)]), folder / "dislikes.parquet")
    small = pa.uint32()
    artists = {"artist_id": pa.array([5, 6, 5], small), "item_id": pa.array([7, 7, 99], small)}
    albums = {"album_id": pa.array([1, 2], small), "item_id": pa.array([7, 8], small)}
    pq.write_table(pa.table(artists), folder / "artist_item_mapping.parquet")
    pq.write_table(pa.table(albums), folder / "album_item_mapping.parquet")


def test_yambda(tmp_path: Path) -> None:
    write_yambda(tmp_path)
    config = DataConfig(source="yambda", folder=tmp_path)
    loaded = load(config)
    found = [
        (one["user_id"], one["item_id"], one["timestamp"] - START, one["feedback"]) for one in loaded.events.to_pylist()
    ]
    assert found == [
        ("30", "7", 0, 1),
        ("30", "8", 5, 0),
        ("40", "7", 10, 1),
        ("40", "9", 15, 0),
        ("30", "7", 100, 1),
        ("40", "8", 105, 1),
        ("30", "8", 200, -1),
        ("40", "9", 205, -1),
    ]
    assert loaded.items["item_id"].to_pylist() == ["7", "8", "9"]
    assert loaded.items["category"].to_pylist() == [["artist 5", "artist 6", "album 1"], ["album 2"], []]
    assert loaded.items["text"].to_pylist() == ["artist 5, artist 6, album 1.", "album 2.", "9"]
    assert [one.name for one in source_files(config)] == list(loaded.hashes)


def test_yambda_takes_back_what_was_undone(tmp_path: Path) -> None:
    write_yambda(tmp_path)
    pq.write_table(event_table([(40, 300, 9)]), tmp_path / "undislikes.parquet")
    pq.write_table(event_table([(30, 300, 7)]), tmp_path / "unlikes.parquet")
    loaded = load(DataConfig(source="yambda", folder=tmp_path))
    signs = {
        (one["user_id"], one["item_id"]): one["feedback"]
        for one in loaded.events.to_pylist()
        if one["timestamp"] >= START + 100 and one["feedback"]
    }
    assert signs == {("40", "8"): 1, ("30", "8"): -1}
    counts = loaded.counts.events
    assert counts.rows == 10
    assert counts.kept == loaded.events.num_rows == counts.rows - sum(counts.refused.values())


def test_yambda_unified_file_is_the_same_log(tmp_path: Path) -> None:
    for name in ("single", "unified"):
        (tmp_path / name).mkdir()
    write_yambda(tmp_path / "single")
    whole = load(DataConfig(source="yambda", folder=tmp_path / "single"))
    tables = []
    for one in ("listen", "like", "dislike"):
        table = pq.read_table(tmp_path / "single" / f"{one}s.parquet")
        for name, kind in (("played_ratio_pct", pa.uint16()), ("track_length_seconds", pa.uint32())):
            if name not in table.column_names:
                table = table.append_column(name, pa.nulls(table.num_rows, kind))
        kind_of = pa.array([one] * table.num_rows).dictionary_encode()
        tables.append(table.append_column("event_type", kind_of))
    pq.write_table(pa.concat_tables(tables, promote_options="default"), tmp_path / "unified" / "multi_event.parquet")
    loaded = load(DataConfig(source="yambda", folder=tmp_path / "unified"))
    assert loaded.events.equals(whole.events)
    assert loaded.items["item_id"].equals(whole.items["item_id"])
    assert loaded.items["text"].to_pylist() == ["7", "8", "9"]


def test_yambda_says_what_it_cannot_read(tmp_path: Path) -> None:
    write_yambda(tmp_path)
    (tmp_path / "dislikes.parquet").unlink()
    with pytest.raises(DataError, match=r"holds no events; expected dislikes\.parquet"):
        load(DataConfig(source="yambda", folder=tmp_path))
    pq.write_table(pa.table({"uid": [1], "item_id": [[1, 2]], "timestamp": [[5, 10]]}), tmp_path / "dislikes.parquet")
    with pytest.raises(DataError, match="one row a user"):
        load(DataConfig(source="yambda", folder=tmp_path))


NEWS = (
    'N1\tlifestyle\tlifestyleroyals\tThe "Brands" Queen Elizabeth Swears By\tShop the notebooks.\thttps://x/1\t[]\t[]\n'
    "N2\thealth\tweightloss\t50 Worst Habits\t\thttps://x/2\t[]\t[]\n"
)


def write_mind(folder: Path, rows: str) -> None:
    folder.mkdir(exist_ok=True)
    folder.joinpath("behaviors.tsv").write_text(rows)
    folder.joinpath("news.tsv").write_text(NEWS)


def test_mind(tmp_path: Path) -> None:
    rows = (
        "1\tU13740\t11/11/2019 9:05:58 AM\tN2 N1\tN1-1 N2-0\n"
        "2\tU91836\t11/12/2019 6:11:30 PM\t\tN2-0\n"
        "3\tU1\t2/30/2019 6:11:30 PM\t\tN2-0\n"
        "4\tU1\t11/12/2019 6:11:30 PM\t\tN1 N9-1 N2-1\n"
    )
    write_mind(tmp_path, rows)
    config = DataConfig(source="mind", folder=tmp_path)
    loaded = load(config)
    assert loaded.events.to_pylist() == [
        {"user_id": "U13740", "item_id": "N1", "timestamp": 1573463158, "feedback": 1},
        {"user_id": "U13740", "item_id": "N2", "timestamp": 1573463158, "feedback": 0},
        {"user_id": "U91836", "item_id": "N2", "timestamp": 1573582290, "feedback": 0},
        {"user_id": "U1", "item_id": "N2", "timestamp": 1573582290, "feedback": 1},
    ]
    assert loaded.items["title"].to_pylist() == ['The "Brands" Queen Elizabeth Swears By', "50 Worst Habits"]
    assert loaded.items["category"].to_pylist()[0] == ["lifestyle", "lifestyleroyals"]
    assert loaded.items["text"].to_pylist()[0].endswith("lifestyle, lifestyleroyals. Shop the notebooks.")
    counts = loaded.counts.events
    assert (counts.rows, counts.kept) == (7, 4)
    assert counts.refused == {"timestamp not readable": 1, "event name not listed": 1, "unknown item": 1}
    assert counts.examples["event name not listed"].startswith("line 4: event = 'N1'")
    assert counts.examples["timestamp not readable"].startswith("line 3: timestamp = '2/30/2019 6:11:30 PM'")
    passed_over = config.model_copy(update={"feedback": FeedbackRule(events={"skip": -1})})
    assert load(passed_over).events["feedback"].to_pylist() == [1, -1, -1, 1]


def test_mind_parts_in_folders_are_joined(tmp_path: Path) -> None:
    write_mind(tmp_path / "MINDsmall_train", "1\tU1\t11/11/2019 9:05:58 AM\t\tN1-1\n")
    write_mind(tmp_path / "MINDsmall_dev", "1\tU1\t11/15/2019 12:00:00 AM\t\tN2-0 N2-x\n")
    config = DataConfig(source="mind", folder=tmp_path)
    loaded = load(config)
    assert loaded.events["item_id"].to_pylist() == ["N2", "N1"]
    assert loaded.events["timestamp"].to_pylist() == [1573776000, 1573463158]
    assert loaded.counts.items.refused == {"item listed twice with equal content": 2}
    assert sorted(loaded.hashes) == [
        "MINDsmall_dev/behaviors.tsv",
        "MINDsmall_dev/news.tsv",
        "MINDsmall_train/behaviors.tsv",
        "MINDsmall_train/news.tsv",
    ]
    assert len(source_files(config)) == 4


def test_mind_without_labels_or_files(tmp_path: Path) -> None:
    write_mind(tmp_path, "1\tU1\t11/11/2019 9:05:58 AM\t\tN1 N2\n")
    with pytest.raises(DataError, match="2 event name not listed"):
        load(DataConfig(source="mind", folder=tmp_path))
    (tmp_path / "news.tsv").unlink()
    with pytest.raises(DataError, match=r"expected behaviors\.tsv and news\.tsv"):
        load(DataConfig(source="mind", folder=tmp_path))
    with pytest.raises(ConfigError, match=r"data\.folder: the source 'mind' is read from a folder of yours"):
        load(DataConfig(source="mind"))
    with pytest.raises(ConfigError, match=r"no address that its files could be fetched from.*msnews"):
        fetch("mind", DataConfig(source="mind"))

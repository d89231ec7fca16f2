"""What ``conrec data check`` reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from conrec.config import Config, DataConfig, FeedbackRule, ProtocolConfig
from conrec.errors import ConfigError, DataError
from conrec.logs.check import check, check_files
from conrec.logs.schema import SPLITS
from conrec.logs.sources import Loaded

T = 1_000_000_000


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    events, items = tmp_path / "log.csv", tmp_path / "catalogue.csv"
    rows = ["u1,i1,1,1000000000", "u1,i2,5,1000000001", "u2,i9,3,1000000002", "u2,i1,4,1000086400"]
    events.write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]))
    items.write_text("item_id,title\ni1,One\ni2,😀\n")
    return events, items


def test_roles_are_guessed_and_the_missing_rule_is_asked_for(files: tuple[Path, Path]) -> None:
    for order in (files, files[::-1]):
        report = check_files(order)
        assert [one.file for one in report.files] == ["log.csv", "catalogue.csv"]
        assert report.files[0].refused == {"unknown item": 1}
        assert report.files[1].noted == {"title without letters": 1}
        assert (report.facts["events"], report.facts["users"], report.facts["items"]) == (3, 2, 2)
        assert "negative" not in report.facts
        assert report.facts["last event"] == "2001-09-10 01:46:40 UTC"
        assert "Ratings run from 1 to 5" in report.advice[0]
        text = "\n".join(report.lines())
        assert "log.csv: 4 rows = 3 kept + 1 refused" in text
        assert report.to_json()["files"][0]["refused"] == {"unknown item": 1}


def test_with_a_rule_feedback_is_counted(files: tuple[Path, Path]) -> None:
    rule = FeedbackRule(negative_at_most=2, positive_at_least=4)
    facts = check_files(files, DataConfig(source="table", feedback=rule)).facts
    assert (facts["negative"], facts["neutral"], facts["positive"]) == (1, 0, 2)


def test_plain_files_get_periods_and_anchors_too(tmp_path: Path) -> None:
    events, items = tmp_path / "log.csv", tmp_path / "items.csv"
    days = [f"u{n % 2},i{n},{-1 if n % 3 == 0 else 1},{T + n * 172_800}" for n in range(60)]
    events.write_text("\n".join(["user_id,item_id,feedback,timestamp", *days, f"once,i0,-1,{T}"]))
    items.write_text("item_id,title\n" + "".join(f"i{n},Title {n}\n" for n in range(60)))
    config = Config(data=DataConfig(source="table", events=events, items=items))
    for report in (check_files([events, items]), check_files([events])):
        assert (report.facts["users with one event"], report.facts["negatives without history"]) == (1, 2)
        assert all(report.facts[f"{split} anchors"] for split in SPLITS)
        assert all(report.facts[name] == value for name, value in check(config).facts.items() if "anchors" in name)
    assert check_files([events, items]).advice == ()
    monthly = check_files([events, items], protocol=ProtocolConfig(horizon_days=31)).facts
    assert monthly["test anchors"] < report.facts["test anchors"]


@pytest.mark.parametrize(("sign", "says"), [(-1, "Not one event is positive"), (1, "Not one event is negative")])
def test_one_kind_of_feedback_is_worth_an_advice(tmp_path: Path, sign: int, says: str) -> None:
    path = tmp_path / "log.csv"
    rows = [f"u{n % 3},i{n},{sign},{T + n * 86_400}" for n in range(40)]
    path.write_text("\n".join(["user_id,item_id,feedback,timestamp", *rows]))
    report = check_files([path])
    assert [one.split(":")[0] for one in report.advice[1:]] == [says]
    assert report.facts["negative" if sign == 1 else "positive"] == 0


@pytest.mark.parametrize(
    ("name", "header", "says"),
    [
        ("x.csv", "user_id,item_id,title,time", ["x.csv, line 1", "no column 'timestamp'", "Did you mean 'time'"]),
        ("x.csv", "user_id,item_id,title", ["no column 'timestamp'", "[data.columns]"]),
        ("x.csv", "item_id,timestamp,rating,user", ["no column 'user_id'", "Did you mean 'user'"]),
        ("x.csv", "item_id,titel", ["no column 'title'", "Did you mean 'titel'", "[data.item_columns]"]),
    ],
)
def test_the_role_with_more_columns_says_which_is_missing(
    tmp_path: Path, name: str, header: str, says: list[str]
) -> None:
    (tmp_path / name).write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(DataError) as caught:
        check_files([tmp_path / name])
    for part in says:
        assert part in str(caught.value)


def test_a_catalogue_with_ratings_and_times_is_a_catalogue(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"item_id,title,rating,timestamp\n1,One,4.5,{T}\n")
    assert check_files([tmp_path / "x.csv"]).facts == {"items": 1}


def test_one_file_alone(files: tuple[Path, Path]) -> None:
    report = check_files(files[:1])
    assert report.facts["events"] == 4
    assert any("No items file" in one for one in report.advice)
    assert check_files(files[1:]).advice == ("No events file was given.",)


def test_event_names_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    names = ["view", "view", "dislike"]
    path.write_text(
        "\n".join(
            f'{{"user_id": 1, "item_id": {n}, "timestamp": {T}, "event": "{name}"}}' for n, name in enumerate(names)
        )
    )
    assert "'view' (2), 'dislike' (1)" in check_files([path]).advice[1]


def test_files_whose_role_is_unclear(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"columns are 'a', 'b'; expected item_id, timestamp, user_id \(events\) or"):
        check_files([tmp_path / "x.csv"])
    with pytest.raises(DataError, match="one file of each"):
        check_files([files[0], files[0]])
    (tmp_path / "y.csv").write_text(f"user_id,item_id,timestamp\nu,i,{T}\n")
    with pytest.raises(ConfigError, match="none of rating, event and feedback"):
        check_files([tmp_path / "y.csv"])


def test_a_whole_configuration(ml100k: Loaded, files: tuple[Path, Path]) -> None:
    assert ml100k.name == "ml-100k"  # the fixture has fetched it
    facts = check(Config(data=DataConfig(cache=Path(__file__).parents[2] / ".cache" / "conrec"))).facts
    assert (facts["events"], facts["users"], facts["items"]) == (100_000, 943, 1682)
    assert (facts["users with one event"], facts["negatives without history"]) == (0, 283)
    assert (facts["train anchors"], facts["validation anchors"], facts["test anchors"]) == (11_973, 112, 242)
    config = DataConfig(source="table", events=files[0], items=files[1], feedback=FeedbackRule(negative_at_most=2))
    report = check(Config(data=config))
    assert report.facts["negative"] == 1
    assert report.advice[0].startswith("Not one event is positive")
    assert report.advice[1].startswith("A run will stop here: periods: the cuts at 0.7 and 0.8 of 3 events")

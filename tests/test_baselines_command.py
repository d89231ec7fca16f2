"""``conrec baselines``: what it lists, which rows it trains, and what it says to a mistake."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from conrec.cli import app
from conrec.comparing.compare import choose_rows, compare
from conrec.comparing.describe import every_row, one_row
from conrec.config import Config, load_config
from conrec.errors import ConfigError, ConrecError
from conrec.rows import BASELINES, rows_of
from tests.comparing.small import write_manifests


def baselines(*arguments):
    return CliRunner().invoke(app, ["baselines", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--rows", "sasrek"], "no row 'sasrek'. Did you mean 'sasrec'"),
        (["run", "--rows", "sasrec", "--all"], "--all and --rows exclude each other"),
        (["run", "--rows", " , "], "names no row"),
        (["run", "--rows", "conrec", "--without-conrec"], "--without-conrec leaves it out"),
        (["run", "--all", "--seeds", "0,one"], "'one' is no seed"),
        (["run", "--all", "--data", "ml100k"], "Did you mean 'ml-100k'?"),
        (["run", "nowhere.toml", "--all"], "this file does not exist"),
        (["run", "--set", 'baselines.rows=["sasrek"]'], "Did you mean 'sasrec'"),
        (["table", "nowhere"], "holds no run of a seed"),
        (["search"], "give rows, or --all"),
        (["search", "--all", "sasrec"], "give rows, or --all"),
        (["search", "sasrek", "--data", "ml-100k", "--out", "nowhere"], "Did you mean 'sasrec'"),
        (["list", "sasrek"], "Did you mean 'sasrec'"),
    ],
)
def test_mistakes_end_with_a_clear_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = baselines(*arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, ConrecError)
    assert said in str(done.exception)
    assert not list(tmp_path.rglob("*.json"))


def test_a_budget_of_no_trials_is_refused():
    done = baselines("search", "sasrec", "--trials", "0")
    assert done.exit_code == 2
    assert "--trials" in done.output


def test_every_row_is_listed():
    done = baselines("list")
    assert done.exit_code == 0
    for row in BASELINES:
        assert f" {row} " in done.output
    assert [row[0] for row in every_row().rows] == list(BASELINES)


def test_one_row_is_listed_with_its_settings():
    listing = one_row("live-popularity", Config())
    assert listing.rows[0][:3] == ("days", "30", "7, 30, 90")
    assert one_row("most-disliked", Config()).rows == ()
    assert baselines("list", "live-popularity").exit_code == 0


@pytest.mark.parametrize(
    ("asked", "rows", "conrec"),
    [
        ({}, Config().baselines.rows, True),
        ({"conrec": False}, Config().baselines.rows, False),
        ({"every": True}, BASELINES, True),
        ({"every": True, "conrec": False}, BASELINES, False),
        ({"rows": "sasrec, ease"}, ("ease", "sasrec"), False),
        ({"rows": "conrec,sasrec,sasrec"}, ("sasrec",), True),
    ],
)
def test_rows_are_chosen(asked, rows, conrec):
    config = choose_rows(Config(), **asked)
    assert config.baselines.rows == rows
    assert ("conrec" in rows_of(config)) == conrec
    assert set(rows_of(config)) >= set(rows)


def test_runs_of_other_data_are_refused_before_any_work(finished_run, tmp_path):
    (tmp_path / "seed-1").mkdir()
    shutil.copy(finished_run / "config.toml", tmp_path / "seed-1")
    other = load_config(overrides={"data": {"source": "movielens-1m"}})
    with pytest.raises(ConfigError, match="made from other data"):
        compare(other, tmp_path, (0, 1))
    assert not (tmp_path / "seed-0").exists()


def test_a_table_is_printed_anew_from_the_files(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "seed-0")
    write_manifests(tmp_path / "seed-0")
    done = baselines("table", tmp_path, "--reference", "sasrec")
    assert done.exit_code == 0, done.output
    assert "Difference to sasrec" in done.output
    assert "table.md" in done.output
    as_json = baselines("table", tmp_path, "--json")
    assert json.loads(as_json.output) == json.loads((tmp_path / "table.json").read_text())

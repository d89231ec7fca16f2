"""The study of filters: results that keep what the tables need, runs made anew one by one, plots."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.studies import filter_analysis

from conrec.artefacts import hash_file, read_json


def study(monkeypatch, folder, *runs, models=("sasrec", "conrec")):
    words = [part for one in runs for part in ("--run", one)]
    places = ["--results", str(folder / "results.json"), "--images", str(folder / "images")]
    monkeypatch.setattr(sys, "argv", ["study", *words, *places, "--models", *models])
    filter_analysis.main()
    return read_json(folder / "results.json")["runs"]


def test_a_run_is_analysed_and_left_as_it_was(finished_run, tmp_path, monkeypatch, capsys):
    before = hash_file(finished_run / "results")
    runs = study(monkeypatch, tmp_path, f"movietweetings={finished_run}")
    assert hash_file(finished_run / "results") == before
    printed = capsys.readouterr().out
    found = runs["movietweetings"]
    assert printed.startswith(filter_analysis.tables("movietweetings", found))
    for method, one in found["methods"].items():
        assert f"| {method} | " in printed
        assert one["curve"] == []
        assert [each["rate"] for each in one["equal"] if each["test"]] == [found["main"]]
        assert ("categories" in one["equal"][2]["test"]) == (method == "conrec")
    assert {one.name for one in (tmp_path / "images").iterdir()} == {
        f"filter-{name}-{shade}.svg"
        for name in ("movietweetings", "users-movietweetings", "equal", "within")
        for shade in ("light", "dark")
    }
    # Another run beside it: what was there stays.
    both = study(monkeypatch, tmp_path, f"another={finished_run}", models=["conrec"])
    assert list(both) == ["movietweetings", "another"]
    assert both["movietweetings"] == found


def test_mistakes_are_named(finished_run, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="none of nobody has predictions"):
        study(monkeypatch, tmp_path, f"x={finished_run}", models=["nobody"])
    with pytest.raises(SystemExit):
        study(monkeypatch, tmp_path, f"x={tmp_path / 'nowhere'}")
    assert "expected NAME=FOLDER" in capsys.readouterr().err

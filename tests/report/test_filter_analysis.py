"""The section on the filter beside the rules of platforms: what it shows, and what it says where something lacks."""

from __future__ import annotations

import base64
import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from conrec.artefacts import read_json, write_json
from conrec.filtering.analysis.analyse import ANALYSIS
from conrec.report.canvas import draw
from conrec.report.caught_curves import HEIGHT, paint_caught
from conrec.report.content import Cell, FigureBlock, ListBlock, Note, Table, number
from conrec.report.filter_analysis import filter_analysis
from conrec.report.filtering import filtering
from conrec.report.source import RunSource


@pytest.fixture(scope="module")
def source(finished_run: Path) -> RunSource:
    return RunSource.load(finished_run)


@pytest.fixture(scope="module")
def found(finished_run: Path) -> dict[str, Any]:
    result: dict[str, Any] = read_json(finished_run / ANALYSIS)
    return result


@pytest.fixture
def changed(finished_run: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, ignore=shutil.ignore_patterns("models"))
    return run


def test_it_is_part_of_the_chapter_on_the_filter(source: RunSource) -> None:
    blocks = filter_analysis(source)
    assert filtering(source).blocks[-len(blocks) :] == tuple(blocks)
    assert [type(one) for one in blocks[:3]] == [FigureBlock, ListBlock, FigureBlock]
    tables = [one for one in blocks if isinstance(one, Table)]
    assert len(tables) == 5
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
    notes = [one.text for one in blocks if isinstance(one, Note)]
    assert any("block the shop" in one and "no column 'shop'" in one for one in notes)


def test_every_method_has_its_row_and_the_best_is_bold(source: RunSource, found: dict[str, Any]) -> None:
    table = next(one for one in filter_analysis(source) if isinstance(one, Table))
    assert [row[0].text for row in table.rows] == list(found["methods"])
    for column, rate in enumerate(found["rates"], 1):
        values = {name: one["equal"][column - 1]["caught"]["value"] for name, one in found["methods"].items()}
        best = max(values.values())
        for row in table.rows:
            assert row[column].text == number(values[row[0].text], 3)
            assert row[column].strong == (values[row[0].text] == best), rate
    reference = next(row for row in table.rows if row[0].text == "conrec")
    assert reference[-3] == Cell("–", tone="quiet")


def test_without_the_analysis_it_says_so(changed: Path) -> None:
    (changed / ANALYSIS).unlink()
    blocks = filter_analysis(RunSource.load(changed))
    assert [type(one) for one in blocks] == [Note]
    assert isinstance(blocks[0], Note)
    assert "conrec filter analyse" in blocks[0].text


def test_without_liked_items_it_says_so(changed: Path, found: dict[str, Any]) -> None:
    empty = copy.deepcopy(found)
    empty["segments"]["all"]["positives"] = 0
    write_json(changed / ANALYSIS, empty)
    blocks = filter_analysis(RunSource.load(changed))
    assert len(blocks) == 1
    assert isinstance(blocks[0], Note)
    assert "no liked items" in blocks[0].text


def test_without_models_or_categories_the_rules_remain(changed: Path, found: dict[str, Any]) -> None:
    fewer = copy.deepcopy(found)
    fewer["methods"] = {name: one for name, one in fewer["methods"].items() if one["kind"] == "rule"}
    fewer["reference"] = fewer["categories"] = None
    write_json(changed / ANALYSIS, fewer)
    blocks = filter_analysis(RunSource.load(changed))
    assert len([one for one in blocks if isinstance(one, Table)]) == 4


def test_every_method_is_in_the_legend_and_the_plot_repeats(found: dict[str, Any]) -> None:
    labels: list[str] = []

    def paint(figure: Any, palette: Any) -> None:
        paint_caught(found, "a log")(figure, palette)
        labels.extend(text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts())
        assert [axes.get_title(loc="left") for axes in figure.axes] == [
            "a log: rows of the run",
            "a log: rules of platforms",
        ]

    first = draw(paint, HEIGHT, "alt", "caption")
    assert set(labels) == {*found["methods"], "at random"} - {"random"}
    assert labels.count("conrec") == 2
    again = draw(paint_caught(found, "a log"), HEIGHT, "alt", "caption")
    assert (first.light, first.dark) == (again.light, again.dark)
    assert first.light != first.dark
    svg = base64.b64decode(first.light.partition(",")[2]).decode()
    assert "http" not in svg.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )

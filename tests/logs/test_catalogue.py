"""Clean items: titles, categories, texts, and items listed twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from conrec.config import DataConfig, ImageConfig, ItemColumns
from conrec.errors import DataError
from conrec.items.encoders.images import image_bytes
from conrec.logs.catalogue import clean_items, has_letters, item_text
from conrec.logs.counts import FileCounts
from conrec.logs.files import Raw
from conrec.logs.schema import ITEMS


def clean(columns: dict[str, Any], **mapping: str) -> tuple[pa.Table, FileCounts]:
    raw = Raw(Path("items.csv"), pa.table(columns), lambda row: row + 2, "line")
    return clean_items(raw, ItemColumns(**mapping), DataConfig(max_refused=1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("1", "Toy Story (1995)", ["Animation", "Children's"]), "Toy Story (1995). Animation, Children's."),
        (("1", "What?", ["Drama"], "A film. A good one!"), "What? Drama. A film. A good one!"),
        (("1", "Fargo", []), "Fargo."),
        (("1", "😀", ["Comedy"]), "Comedy."),
        (("sku-7", "😀 !", []), "sku-7"),
        (("sku-7", "", [], "Blue lamp"), "Blue lamp."),
    ],
)
def test_text_of_an_item(arguments: Any, text: str) -> None:
    assert item_text(*arguments) == text


@pytest.mark.parametrize(
    ("title", "has"), [("a", True), ("7", True), ("千と千尋", True), ("😀🎉", False), ("?!", False)]
)
def test_letters_are_of_any_script(title: str, has: bool) -> None:
    assert has_letters(title) is has


def test_items_with_everything() -> None:
    items, counts = clean(
        {"item_id": [1, 2], "title": ["A\n b ", "C"], "kind": ["x| y||x", None], "about": [None, "D."],
         "pic": ["p", ""]},
        category="kind", description="about", image="pic",
    )  # fmt: skip
    assert items.schema == ITEMS
    assert items.to_pylist() == [
        {"item_id": "1", "title": "A b", "text": "A b. x, y.", "category": ["x", "y"], "image": "p"},
        {"item_id": "2", "title": "C", "text": "C. D.", "category": [], "image": None},
    ]
    assert (counts.rows, counts.kept, counts.refused, counts.noted) == (2, 2, {}, {})


def test_categories_as_lists_and_a_text_of_its_own() -> None:
    items, _ = clean(
        {"item_id": ["1", "2"], "title": ["A", "B"], "category": [["x", "x", " "], None], "text": ["own", ""]},
        category="category", text="text",
    )  # fmt: skip
    assert items["category"].to_pylist() == [["x"], []]
    assert items["text"].to_pylist() == ["own", "B."]


def test_a_title_of_emoji_is_kept_and_noted() -> None:
    items, counts = clean({"item_id": ["1", "2", "3"], "title": ["😀", "", "ok"]})
    assert items["title"].to_pylist() == ["😀", "", "ok"]
    assert items["text"].to_pylist() == ["1", "2", "ok."]
    assert counts.noted == {"title without letters": 2}
    assert counts.examples["title without letters"] == "line 2: title '😀', its text is '1'"


def test_an_item_listed_twice_alike_is_merged() -> None:
    items, counts = clean({"item_id": ["1", "2", "1"], "title": ["A", "B", "A "]})
    assert items["item_id"].to_pylist() == ["1", "2"]
    assert counts.refused == {"item listed twice with equal content": 1}


def test_an_item_listed_twice_differently_names_both_rows() -> None:
    with pytest.raises(DataError) as caught:
        clean({"item_id": ["1", "2", "1"], "title": ["A", "B", "C"]})
    for part in ("items.csv, line 4", "line 2 has the title 'A'", "line 4 has 'C'", "disagree"):
        assert part in str(caught.value)


def test_an_item_without_id_is_refused() -> None:
    _, counts = clean({"item_id": ["1", None], "title": ["A", "B"]})
    assert counts.refused == {"empty item id": 1}
    assert counts.examples["empty item id"] == "line 3: title 'B'"
    assert counts.lines()[0] == "items.csv: 2 rows = 1 kept + 1 refused"


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_bytes_of_images_become_data_uris(kind: pa.DataType) -> None:
    file = bytes(range(256)) * 4
    table = {"item_id": ["1", "2", "3"], "title": ["A", "B", "C"], "pic": pa.array([file, None, b""], kind)}
    items, _ = clean(table, image="pic")
    uri, *others = items["image"].to_pylist()
    assert others == [None, None]
    assert uri.startswith("data:application/octet-stream;base64,")
    assert image_bytes(uri, ImageConfig()) == file
    # An error about them does not print them whole.
    again = {"item_id": ["1", "1"], "title": ["A", "A"], "pic": pa.array([file, file[::-1]], kind)}
    with pytest.raises(DataError, match="listed twice") as caught:
        clean(again, image="pic")
    assert len(str(caught.value)) < 1200


def test_paths_of_images_keep_their_blanks() -> None:
    items, _ = clean({"item_id": ["1", "2"], "title": ["A", "B"], "pic": [" a  b.png ", "  "]}, image="pic")
    assert items["image"].to_pylist() == ["a  b.png", None]

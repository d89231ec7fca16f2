"""One rule for titles."""

from __future__ import annotations

import pyarrow as pa

from conrec.logs.titles import titles_of


def test_blanks_are_no_title() -> None:
    table = pa.table({"item_id": ["a", "b", "c", "d"], "title": ["\tRear Window \n", " \t", "", None]})
    assert titles_of(table) == ["Rear Window", "b", "c", "d"]

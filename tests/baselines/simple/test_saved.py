"""Every row that counts: fitted from a run as configured, saved and loaded to the byte; damaged folders are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conrec.artefacts import read_json, read_tensors, write_json, write_tensors
from conrec.baselines.registry import REGISTRY, baseline_class
from conrec.comparing.grids import grid_of, with_settings
from conrec.config import Config
from conrec.errors import ArtefactError
from tests.baselines.worlds import space_of
from tests.conformance import CUT, queries_of, small_log

ROWS = ("category-rule", "nearest-item", "item-knn-negatives", "item-knn-all", "user-knn", "ease")


@pytest.mark.parametrize("row", ROWS)
def test_saved_and_loaded_it_answers_to_the_byte(row: str, tmp_path: Path) -> None:
    log = small_log()
    section = row.replace("-", "_")
    space = space_of(log, CUT, {"baselines": {section: {"half_life_days": 25.0}}})
    model = baseline_class(row).fit(space, row)
    model.save(tmp_path)
    # What it was fitted with is in its folder; the configuration may have changed since.
    loaded = baseline_class(row).load(tmp_path, space_of(log, CUT), row)
    queries = queries_of(log)
    every = np.tile(np.arange(log.n_items, dtype=np.int32), (len(queries), 1))
    np.testing.assert_array_equal(loaded.score(log, queries, every), model.score(log, queries, every))
    assert loaded.parameters == model.parameters > 0
    assert loaded.curve == model.curve == {}


@pytest.mark.parametrize("row", ROWS)
def test_only_the_training_period_teaches(row: str) -> None:
    log = small_log()
    whole = baseline_class(row).fit(space_of(log, CUT), row)
    changed = small_log()
    late = changed.timestamp >= CUT
    changed.item[late] = changed.item[late][::-1]
    other = baseline_class(row).fit(space_of(changed, CUT), row)
    queries = queries_of(log).select(np.flatnonzero(queries_of(log).timestamp <= CUT))
    every = np.tile(np.arange(log.n_items, dtype=np.int32), (len(queries), 1))
    np.testing.assert_array_equal(other.score(log, queries, every), whole.score(log, queries, every))


@pytest.mark.parametrize("row", ROWS)
def test_a_damaged_folder_is_refused(row: str, tmp_path: Path) -> None:
    space, kind = space_of(small_log(), CUT), baseline_class(row)
    kind.fit(space, row).save(tmp_path)
    tables, settings = read_tensors(tmp_path / "model.safetensors"), read_json(tmp_path / "config.json")
    for name in tables:
        write_tensors(tmp_path / "model.safetensors", {other: one for other, one in tables.items() if other != name})
        with pytest.raises(ArtefactError, match="does not hold the table"):
            kind.load(tmp_path, space, row)
    write_tensors(tmp_path / "model.safetensors", tables)
    write_json(tmp_path / "config.json", {**settings, "half_life_days": -1})
    with pytest.raises(ArtefactError, match="half_life_days"):
        kind.load(tmp_path, space, row)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtefactError, match="cannot be read as JSON"):
        kind.load(tmp_path, space, row)


@pytest.mark.parametrize("row", ROWS)
def test_every_point_of_the_grid_is_allowed(row: str) -> None:
    grid = grid_of(Config(), row)
    assert REGISTRY[row].sections[0] == grid.section
    assert grid.size > 5
    for name, values in grid.fields.items():
        for value in values:
            with_settings(Config(), grid.section, {**grid.first, name: value})

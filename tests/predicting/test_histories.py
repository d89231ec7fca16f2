"""Newer events beside the run's own: added, replaced, refused, and read by the model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conrec.config import EventColumns, FeedbackRule, load_config
from conrec.errors import ConfigError, DataError
from conrec.logs.schema import EVENTS
from conrec.predicting.histories import read_histories
from conrec.predicting.job import PredictJob
from conrec.predicting.predictor import Predictor


@pytest.fixture(scope="module")
def config(run_folder):
    return load_config(file=run_folder / "config.toml").data


@pytest.fixture(scope="module")
def events(run_folder):
    return pq.read_table(run_folder / "data" / "events.parquet")


def rows(log):
    """The log as a sorted list of (user, item, timestamp, feedback)."""
    users, items = np.asarray(log.user_ids), np.asarray(log.item_ids)
    columns = users[log.user], items[log.item], log.timestamp, log.feedback
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_new_events_are_added(run_folder, config, events, tmp_path):
    old = read_histories(run_folder, None, config)
    assert old.lines == ()
    end, item = int(old.log.timestamp[-1]), old.log.item_ids[3]
    path = tmp_path / "tonight.csv"
    path.write_text(
        f"user_id,item_id,timestamp,feedback\nnew,{item},{end + 5},-1\n{old.log.user_ids[0]},{item},{end + 7},1\n"
        f"new,unheard of,{end + 8},1\n"
    )
    new = read_histories(run_folder, path, config)
    assert "new" in new.log.user_ids
    assert new.log.item_ids == old.log.item_ids
    added = [(old.log.user_ids[0], item, end + 7, 1), ("new", item, end + 5, -1)]
    assert rows(new.log) == sorted(rows(old.log) + added)
    assert new.lines[0] == "tonight.csv: 3 rows = 2 kept + 1 refused"
    predictor = Predictor(PredictJob(run_folder, "most-disliked", k=3, events=path))
    assert predictor.at == end + 8
    answer = predictor.ask(pa.RecordBatch.from_pydict({"user_id": ["new"]}))
    assert answer.num_rows == 3
    assert item not in answer["item_id"].to_pylist()


def test_a_whole_export_changes_nothing_but_what_it_says(run_folder, config, events, tmp_path):
    path = tmp_path / "export.parquet"
    flipped = events.set_column(3, "feedback", pa.array(-events["feedback"].to_numpy(), pa.int8()))
    pq.write_table(flipped.slice(100), path)
    found = read_histories(run_folder, path, config)
    expected = pa.concat_tables([events.slice(0, 100), flipped.slice(100)]).select(EVENTS.names)
    assert rows(found.log) == sorted(tuple(row.values()) for row in expected.to_pylist())
    assert found.lines[-1] == f"  noted {len(events) - 100:,}: event of the run's log that is in this file again"


def test_ratings_are_read_by_the_rule_of_the_source(run_folder, config, tmp_path):
    """A run of MovieLens-100K has no thresholds in its configuration; those that it has come first."""
    own = config.model_copy(update={"source": "ml-100k", "columns": EventColumns()})
    old = read_histories(run_folder, None, own).log
    end, item = int(old.timestamp[-1]), old.item_ids[0]
    path = tmp_path / "tonight.csv"
    lines = [f"new,{item},{end + stars},{stars}" for stars in range(1, 6)]
    path.write_text("\n".join(["user_id,item_id,timestamp,rating", *lines]) + "\n")
    for rule, expected in (({}, [-1, -1, 0, 1, 1]), ({"negative_at_most": 3}, [-1, -1, -1, 1, 1])):
        found = read_histories(run_folder, path, own.model_copy(update={"feedback": FeedbackRule(**rule)}))
        assert [row[3] for row in rows(found.log) if row[0] == "new"] == expected
        assert found.lines[-1].startswith(
            f"  its ratings are read as those of ml-100k: negative up to {2 + len(rule):g}"
        )
    with pytest.raises(ConfigError, match=r"data\.feedback\.negative_at_most"):
        read_histories(run_folder, path, own.model_copy(update={"source": "table"}))


def test_a_file_that_cannot_be_read_is_named(run_folder, config, tmp_path):
    path = tmp_path / "tonight.csv"
    path.write_text("user_id,item_id,feedback\nu,1,1\n")
    with pytest.raises(DataError, match=r"tonight\.csv.*has no column 'timestamp'"):
        read_histories(run_folder, path, config)

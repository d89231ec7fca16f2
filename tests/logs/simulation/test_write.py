"""What a simulated log holds, and that nothing but its settings decides it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conrec.config import load_config
from conrec.errors import ConfigError
from conrec.logs.check import check, check_files
from conrec.logs.simulation import read_world, simulate, simulation_config
from conrec.logs.simulation.days import Day
from conrec.logs.simulation.reactions import OFF_TOPIC, Reactions
from conrec.logs.simulation.visits import exposures_of_users
from conrec.logs.simulation.write import _Writer
from conrec.logs.sources import load
from conrec.settings.simulation import SimulationConfig
from tests.logs.simulation.conftest import SMALL

TINY = {"users": 40, "items": 150, "categories": 20, "events": 1500, "days": 12, "pilot_events": 1500}


def events_of(folder):
    return pq.read_table(folder / "events.parquet")


def test_counts_are_those_of_the_file(simulated):
    folder, said = simulated
    events = events_of(folder)
    feedback = events["feedback"].to_numpy()
    assert (said.events, said.exposures, said.undone) == (events.num_rows, events.num_rows, 0)
    assert (said.positives, said.negatives) == ((feedback == 1).sum(), (feedback == -1).sum())
    assert said.users == len(events["user_id"].unique())
    assert 0.97 * SMALL.events <= said.events <= SMALL.events
    reasons = events["reason"].to_pylist()
    assert {one for one, sign in zip(reasons, feedback, strict=True) if sign != -1} == {None}
    off_topic = sum(one in OFF_TOPIC for one in reasons)
    assert 0 < off_topic <= said.off_topic < said.negatives
    assert f"{said.ratio:.2f} positives for each" in "\n".join(said.lines())


def test_a_folder_that_cannot_be_made_is_said_before_the_simulation(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr("conrec.logs.simulation.write.calibrate", lambda _: pytest.fail("it began"))
    config = simulation_config(TINY)
    with pytest.raises(ConfigError, match=r"file: is a file; expected a folder"):
        simulate(config, tmp_path / "file")
    with pytest.raises(ConfigError, match=r"file.below: cannot be written to \(Not a directory\)"):
        simulate(config, tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_exposures_that_nobody_could_be_given_are_said(tmp_path, simulated):
    few = simulate(simulation_config({**TINY, "items": 30}), tmp_path)
    assert few.asked == TINY["events"]
    assert few.exposures <= 40 * 30 < few.asked
    assert few.lines()[-1].startswith(f"exposures: 1,500 asked for, {few.exposures:,} made: ")
    _, said = simulated
    assert any("asked for" in line for line in said.lines()) == (said.exposures < SMALL.events)


def test_the_ratio_of_the_settings_is_met(simulated):
    _, said = simulated
    assert said.ratio == pytest.approx(5, rel=0.1)
    assert said.positives / said.exposures == pytest.approx(SMALL.positive_share, rel=0.1)


@pytest.mark.parametrize("ratio", [2.0, 10.0])
def test_another_ratio_is_met_too(ratio, tmp_path):
    config = SMALL.model_copy(update={"positives_per_negative": ratio, "truth_items": 0})
    assert simulate(config, tmp_path).ratio == pytest.approx(ratio, rel=0.15)


def test_events_are_in_order_of_time_and_within_the_log(simulated):
    folder, _ = simulated
    events = events_of(folder)
    time = events["timestamp"].to_numpy()
    assert (np.diff(time) >= 0).all()
    assert time.min() >= SMALL.start
    assert time.max() < SMALL.start + SMALL.days * 86_400
    # No user meets two things in one second, so that nothing is taken for a duplicate.
    pairs = set(zip(events["user_id"].to_pylist(), time.tolist(), strict=True))
    assert len(pairs) == events.num_rows


def test_items_are_shown_once_and_not_before_they_arrive(simulated):
    folder, _ = simulated
    events = events_of(folder).to_pylist()
    assert len({(one["user_id"], one["item_id"]) for one in events}) == len(events)
    world = read_world(folder)
    items = np.asarray([int(one["item_id"][1:]) for one in events])
    days = world.day_of(np.asarray([one["timestamp"] for one in events]))
    assert (world.catalogue.arrival[items] <= days).all()
    assert (world.catalogue.arrival > 0).any()


def test_the_same_settings_give_the_same_log_in_parts_of_any_size(simulated, tmp_path):
    folder, said = simulated
    again = simulate(SMALL, tmp_path, part=777)
    assert events_of(tmp_path).equals(events_of(folder))
    assert pq.ParquetFile(tmp_path / "events.parquet").metadata.row_group(0).num_rows == 777
    for name in ("items.parquet", "truth.parquet"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert again.threshold_negative == said.threshold_negative


def test_another_seed_gives_another_log(simulated, tmp_path):
    simulate(SMALL.model_copy(update={"seed": 6, "truth_items": 0}), tmp_path)
    assert not events_of(tmp_path).equals(events_of(simulated[0]))


def test_no_part_holds_more_than_was_asked_for(tmp_path):
    config = SimulationConfig(**TINY)
    sizes = []
    with pq.ParquetWriter(tmp_path / "e.parquet", _schema()) as writer:
        own = _Writer(writer, config, part=100)
        write = own._write
        own._write = lambda rows: sizes.append(rows) or write(rows)
        for n in (30, 250, 0, 99, 1):
            own.add(a_day(n))
            assert own.rows < 100
        own.close()
    assert sizes == [100, 100, 100, 80]
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 380


def _schema() -> pa.Schema:
    return pa.schema(
        {
            "user_id": pa.string(),
            "item_id": pa.string(),
            "timestamp": pa.int64(),
            "feedback": pa.int8(),
            "reason": pa.string(),
        }
    )


def a_day(n: int) -> Day:
    zeros = np.zeros(n, dtype=np.int64)
    no = np.zeros(n, dtype=np.bool_)
    reactions = Reactions(zeros.astype(np.int8), np.full(n, -1, dtype=np.int8), no, no)
    return Day(zeros, zeros, zeros, reactions, no)


def test_the_log_is_read_as_files_and_by_its_configuration(simulated):
    folder, said = simulated
    found = check_files([folder / "events.parquet", folder / "items.parquet"])
    assert found.facts["events"] == said.events
    assert found.facts["negative"] == said.negatives
    whole = check(load_config(file=folder / "config.toml"))
    left_out = sum(one in OFF_TOPIC for one in events_of(folder)["reason"].to_pylist())
    assert whole.facts["negative"] == said.negatives - left_out
    assert whole.facts["positive"] == said.positives
    assert min(whole.facts[f"{split} anchors"] for split in ("train", "validation", "test")) > 0


def test_presses_by_mistake_are_taken_back(tmp_path):
    config = SMALL.model_copy(update={"undone": 0.3, "truth_items": 0})
    said = simulate(config, tmp_path)
    rows = events_of(tmp_path).to_pylist()
    undone = {(one["user_id"], one["item_id"]): one for one in rows if one["event"] == "undo dislike"}
    pressed = {(one["user_id"], one["item_id"]): one for one in rows if one["event"] == "dislike"}
    assert len(undone) == said.undone > 0.15 * said.negatives
    assert said.ratio == pytest.approx(5, rel=0.15)
    for pair, one in undone.items():
        assert 0 <= one["timestamp"] - pressed[pair]["timestamp"] <= 600
        assert one["reason"] is None
    assert len(pressed) == said.negatives + said.undone
    left_out = sum(one["reason"] in OFF_TOPIC for one in rows)
    loaded = load(load_config(file=tmp_path / "config.toml").data)
    assert loaded.events["feedback"].to_pylist().count(-1) == said.negatives - left_out


@settings(max_examples=12, deadline=None)
@given(
    users=st.integers(1, 60),
    items=st.integers(1, 200),
    days=st.integers(2, 20),
    extra=st.integers(0, 800),
    returning=st.booleans(),
    newcomers=st.sampled_from([0.0, 1.0]),
    new_items=st.sampled_from([0.0, 1.0]),
)
def test_any_platform_can_be_simulated(tmp_path_factory, users, items, days, extra, returning, newcomers, new_items):
    config = SimulationConfig(
        users=users,
        items=items,
        categories=4,
        liked=1,
        disliked=2,
        events=users + extra,
        days=days,
        pilot_events=500,
        returning=returning,
        newcomers=newcomers,
        new_items=new_items,
        truth_days=7,
    )
    exposures = exposures_of_users(config)
    assert exposures.sum() == config.events
    assert exposures.min() >= 1
    folder = tmp_path_factory.mktemp("any")
    said = simulate(config, folder)
    events = events_of(folder)
    assert said.events == events.num_rows <= config.events
    assert set(events["feedback"].to_pylist()) <= {-1, 0, 1}
    index = np.asarray([int(one[1:]) for one in events["user_id"].to_pylist()], dtype=np.int64)
    assert (np.bincount(index, minlength=users) <= exposures).all()
    if items > 20 * (extra + 1) and not new_items:
        assert said.events == config.events


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"user": 3}, "Did you mean 'users'"),
        ({"users": 0}, "users = 0 does not fit"),
        ({"users": 10, "events": 9}, "fewer than users"),
        ({"categories": 10, "liked": 6, "disliked": 5}, "more than the 10 categories"),
        ({"positive_share": 0.5, "positives_per_negative": 1}, "without a reaction"),
    ],
)
def test_settings_that_do_not_fit_are_named(values, said):
    with pytest.raises(ConfigError, match=said):
        simulation_config(values)

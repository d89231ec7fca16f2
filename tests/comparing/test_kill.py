"""A comparison and a search that are killed and started again end as those that were not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.comparing.small import write_small

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(ml100k, tmp_path_factory):
    """The folder with plain and killed results, and whether each kill came in the middle of the work."""
    folder = tmp_path_factory.mktemp("killed")
    config = write_small(ml100k, folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.comparing.killed", str(config), str(folder)],
        capture_output=True, text=True, check=False, timeout=400, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_kills_came_in_the_middle(folders):
    assert sum(folders[1]) >= 4  # of 6; the machine may have been faster this time


def test_the_table_is_the_same(folders):
    tables = [json.loads((folders[0] / name / "table.json").read_text()) for name in ("plain", "killed")]
    for table in tables:
        assert list(table["rows"]) == ["most-disliked", "live-popularity", "sasrec"]
        for row in table["rows"].values():
            assert row["costs"].pop("seconds_per_1000") > 0
            row["costs"].pop("train_seconds")
    assert tables[0] == tables[1]
    assert tables[0]["rows"]["sasrec"]["costs"]["parameters"] > 1000


def test_predictions_are_the_same_to_the_byte(folders):
    plain, killed = folders[0] / "plain", folders[0] / "killed"
    files = sorted(path.relative_to(plain) for path in plain.rglob("*.parquet"))
    assert len(files) == 2 * (4 + 1 + 2 * 3)
    assert files == sorted(path.relative_to(killed) for path in killed.rglob("*.parquet"))
    for name in files:
        assert (plain / name).read_bytes() == (killed / name).read_bytes(), name


def test_trials_and_choice_are_the_same(folders):
    plain, killed = folders[0] / "search", folders[0] / "search-killed"
    for row in ("live-popularity", "sasrec"):
        one, two = (json.loads((folder / f"{row}.json").read_text()) for folder in (plain, killed))
        assert [trial.pop("seconds") >= 0 for trial in one["trials"] + two["trials"]]
        assert one == two
        assert len(one["trials"]) == 7
        assert len({json.dumps(trial["settings"], sort_keys=True) for trial in one["trials"]}) == 7
    assert (plain / "chosen.toml").read_bytes() == (killed / "chosen.toml").read_bytes()


def test_nothing_is_left_under_a_temporary_name(folders):
    assert not [path for path in folders[0].rglob(".*") if path.name != ".lock"]

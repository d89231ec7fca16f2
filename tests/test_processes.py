"""Several processes of one run: they agree, they learn what one would, and they end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conrec.errors import ConfigError
from conrec.processes import ALONE, joined
from tests.process_worker import learn, talk

WORKER = Path(__file__).with_name("process_worker.py")
HERE = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


def two(launcher, work, folder):
    """What two processes found that a launcher started."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "HF_HOME": str(folder)}  # no settings of accelerate's
    done = subprocess.run(
        [*launcher, WORKER, work, folder],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found under torchrun."""
    return two(TORCHRUN, "learn", tmp_path_factory.mktemp("processes"))


def test_they_agree(found):
    agree(found)


def test_they_agree_under_accelerate(tmp_path):
    """The option asks for one process a GPU; where there is none, it starts as many processes all the same."""
    agree(two(ACCELERATE, "talk", tmp_path))


def agree(found):
    """Each knows its place, and heard what all said."""
    assert [(one["rank"], one["world"]) for one in found] == [(0, 2), (1, 2)]
    for one in found:
        assert one["decided"] == {"run": [1, 2]}
        assert one["gathered"] == ["from 0", "from 1"]
        assert one["sum"] == [2.0, 10.0]
        assert one["gradient"] == [[[0.5, 1.5]], [0.0]]
        assert one["threads"] == [2, 1]


def test_they_learn_what_one_process_learns(found):
    """One has 3 contexts of a step and the other 2, or 1 and none: the same curve and weights."""
    alone = learn(ALONE)
    assert alone["augmented"] > 0
    assert len({one["hash"] for one in found}) == 1
    for one in found:
        assert one["augmented"] == alone["augmented"]
        assert one["curve"].keys() == alone["curve"].keys()
        for name, points in alone["curve"].items():
            assert [tuple(point) for point in one["curve"][name]] == [
                (step, pytest.approx(value, abs=1e-9)) for step, value in points
            ], name
        assert one["weights"] == pytest.approx(alone["weights"], abs=1e-9)


def test_one_process_alone_needs_nobody():
    with joined("cpu") as processes:
        one = talk(processes)
    assert one["decided"] == {"run": [1, 2]}
    assert one["gathered"] == ["from 0"]
    assert one["sum"] == [1.0, 0.0]
    assert one["gradient"] == [None, None]


@pytest.fixture(scope="module")
def said() -> dict[tuple[str, str], tuple[str, str]]:
    """How each of several pairs ended, by manner and rank: kind and message. No launcher helps here."""
    errors = ["error, word", "error, numbers", "interrupt, word", "interrupt, numbers", "killed, numbers"]
    manners = ["well", "first fails", *errors]
    done = subprocess.run(
        [sys.executable, WORKER, "fork", *manners],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    heard: dict[tuple[str, str], tuple[str, str]] = {}
    for line in done.stderr.splitlines():
        if line.count("|") >= 3:
            how, rank, kind, message = line.split("|", 3)
            heard[how, rank] = (kind, message)
    return heard


def test_they_end_well_without_a_launcher_too(said):
    """The words lie in the first process, which must not leave while another one still reads."""
    assert [said["well", rank] for rank in "01"] == [("done", ""), ("done", "")]


def test_the_reason_of_the_first_process_is_heard(said):
    assert said["first fails", "0"] == ("ConrecError", "the desk: no more pencils.")
    message = "another process of this run: process 0 of 2 ended (the desk: no more pencils.)."
    assert said["first fails", "1"] == ("PeerError", message)


def test_when_one_ends_the_others_end_and_say_why(said):
    """Each finds out by itself, waiting for a word or for numbers."""
    for waiting in ("word", "numbers"):
        assert said[f"error, {waiting}", "1"] == ("ConrecError", "the desk: no more pencils.")
        kind, message = said[f"error, {waiting}", "0"]
        assert kind == "PeerError"
        assert message == "another process of this run: process 1 of 2 ended (the desk: no more pencils.)."
        assert said[f"interrupt, {waiting}", "1"][0] == "KeyboardInterrupt"
        assert said[f"interrupt, {waiting}", "0"][1].endswith("process 1 of 2 ended (KeyboardInterrupt).")
    kind, message = said["killed, numbers", "0"]
    assert kind == "PeerError"
    assert "cannot be reached any more" in message


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE: the environment variable is 'two'.*torchrun"),
        ({"WORLD_SIZE": "2"}, r"the 2 processes do not find each other.*torchrun"),
    ],
)
def test_variables_that_do_not_fit_together_are_named(monkeypatch, variables, said):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said), joined("cpu"):
        pass

"""The data stage in a process of its own: ours, and the same steps plainly written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from common.plain_logs import plain_prepare
from conrec.config import load_config
from conrec.logs.costs import Costs, peak_gigabytes
from conrec.logs.prepare import STEPS, prepare

__all__ = ["Run", "run_alone"]


@dataclass(frozen=True, slots=True)
class Run:
    """What one process found.

    Attributes:
        seconds: of each step.
        gigabytes: most memory of the process, the libraries that it imports included.
        anchors: of training, validation, test.
        targets: future negatives of all anchors.
        pairs: rows of Swing.
    """

    seconds: dict[str, float]
    gigabytes: float
    anchors: list[int]
    targets: int
    pairs: int

    @property
    def whole(self) -> float:
        """Seconds of all steps."""
        return sum(self.seconds.values())

    @property
    def found(self) -> tuple[list[int], int, int]:
        """What both ways must agree about."""
        return self.anchors, self.targets, self.pairs


def run_alone(kind: str, folder: Path, threads: int) -> Run:
    """Prepare the simulated log in ``folder`` in a fresh process; ``kind`` is "ours" or "plain"."""
    here = Path(__file__).parents[1]
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "PYTHONPATH": str(here)}
    command = [sys.executable, "-m", "common.log_runs", kind, str(folder), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{kind} failed: {done.stderr[-2000:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def _ours(folder: Path, out: Path, threads: int) -> dict[str, Any]:
    config = load_config(file=folder / "config.toml", overrides={"run": {"threads": threads}})
    costs = Costs(STEPS)
    prepare(config, out, costs=costs)
    anchors = pq.read_table(out / "data/anchors.parquet", columns=["split", "future_negatives"])
    splits = anchors["split"].to_pylist()
    return {
        "seconds": costs.seconds,
        "anchors": [splits.count(one) for one in ("train", "validation", "test")],
        "targets": sum(len(chunk.flatten()) for chunk in anchors["future_negatives"].chunks),
        "pairs": pq.read_metadata(out / "data/swing.parquet").num_rows,
    }


def _plain(folder: Path, out: Path, threads: int) -> dict[str, Any]:
    del threads  # polars has read them from the environment
    found = plain_prepare(folder, out)
    return {**{name: found[name] for name in ("seconds", "anchors", "targets")}, "pairs": len(found["swing"])}


def _main() -> None:
    kind, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as out:
        found = {"ours": _ours, "plain": _plain}[kind](folder, Path(out), threads)
    print(json.dumps({**found, "gigabytes": peak_gigabytes()}))


if __name__ == "__main__":
    _main()

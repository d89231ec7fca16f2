"""RecBole in the interpreter that CONREC_BENCHMARK_RECBOLE names; how to make one stands in `recbole_peer`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

__all__ = ["RECBOLE", "ServedRecbole", "recbole_python", "train_recbole"]

RECBOLE = "CONREC_BENCHMARK_RECBOLE"
"""Environment variable with the path of a Python that has RecBole 1.2.1."""
SCRIPT = Path(__file__).with_name("recbole_peer.py")


def recbole_python() -> Path | None:
    """The interpreter, None where the variable is not set.

    Raises:
        SystemExit: it is set to what is not there.
    """
    given = os.environ.get(RECBOLE)
    if given and not Path(given).is_file():
        raise SystemExit(f"{RECBOLE} is {given!r}, and there is no such file: it takes the path of a Python")
    return Path(given) if given else None


def train_recbole(python: Path, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Train one model; what ``recbole_peer.py train`` answers. Its progress goes to the standard error.

    Raises:
        RuntimeError: it failed.
    """
    command = _command(python, "train", spec)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=_threads(spec))
    if done.returncode:
        raise RuntimeError(f"RecBole's {spec['model']} ended with status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


class ServedRecbole:
    """RecBole's SASRec in a process that waits between its turns.

    Attributes:
        rows: training sequences of an epoch.
    """

    def __init__(self, python: Path, spec: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            _command(python, "serve", spec), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=_threads(spec),
        )  # fmt: skip
        self.rows = int(self._answer()["ready"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def epoch(self) -> None:
        """Train for one epoch."""
        self._ask("epoch")

    def score(self) -> None:
        """Rank the 20 best items of the whole catalogue for every user."""
        self._ask("score")

    def _ask(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"RecBole ended with status {self._process.wait()}; run the script by hand to see why")
        found: dict[str, Any] = json.loads(line)
        return found


def _command(python: Path, command: str, spec: Mapping[str, Any]) -> list[str]:
    return [str(python), str(SCRIPT), command, json.dumps(dict(spec))]


def _threads(spec: Mapping[str, Any]) -> dict[str, str]:
    count = str(spec["threads"])
    return {**os.environ, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}

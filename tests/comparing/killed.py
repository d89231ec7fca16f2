"""Kill a comparison and a search at several moments and let them go on; run as a script by test_kill.

The parent never computes anything itself, so that each child can be forked with everything imported. Runs write no
report here: it takes longer than all else, and is tested elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna  # noqa: F401  (imported once, by the parent)

from conrec import run
from conrec.baselines.registry import baseline_class
from conrec.comparing.compare import compare
from conrec.comparing.search import search
from conrec.config import load_config

SEEDS = (0, 1)
TRIALS = 7
SEARCHED = ("live-popularity", "sasrec")


def child(work: Callable[[], object]) -> int:
    """Fork a process that does some work; its process ID."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return pid


def finish(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"the work ended with status {status}")


def kill_once(work: Callable[[], object], reached: Callable[[], bool], wait: float, unfinished: Path) -> bool:
    """Kill the work ``wait`` seconds after a moment was reached; whether a file it was working at is not there yet."""
    pid = child(work)
    while not reached():
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit(f"the work ended before {unfinished} was there")
        time.sleep(0.0005)
    time.sleep(wait)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return not unfinished.exists()


def trials_of(path: Path) -> int:
    """Trials in a journal; it is replaced as a whole, so that it can be read while it is written."""
    return len(json.loads(path.read_text())["trials"]) if path.is_file() else 0


if __name__ == "__main__":
    file, folder = (Path(one) for one in sys.argv[1:3])
    config = load_config(file=file)
    run.build_report = lambda folder: folder
    for row in ("most-disliked", "sasrec"):
        baseline_class(row)
    plain, killed = folder / "plain", folder / "killed"
    hit = []
    finish(child(lambda: compare(config, plain, SEEDS)))
    first, second = killed / "seed-0", killed / "seed-1"
    moments = (
        ((first / "data").exists, 0.05, first / "data" / "manifest.json"),
        ((first / "predictions" / "live-popularity.manifest.json").exists, 0.1, first / "models" / "sasrec.train.json"),
        ((second / "data" / "manifest.json").exists, 0.1, second / "items" / "manifest.json"),
        ((second / "predictions" / "sasrec.manifest.json").exists, 0.0, killed / "table.json"),
    )
    for reached, wait, unfinished in moments:
        hit.append(kill_once(lambda: compare(config, killed, SEEDS), reached, wait, unfinished))
    finish(child(lambda: compare(config, killed, SEEDS)))

    finish(child(lambda: search(config, SEARCHED, folder / "search", TRIALS)))
    again = folder / "search-killed"
    journals = [again / f"{row}.json" for row in SEARCHED]
    for path, trials in ((journals[0], 2), (journals[1], TRIALS - 1)):
        pid = child(lambda: search(config, SEARCHED, again, TRIALS))
        while trials_of(path) < trials:
            if os.waitpid(pid, os.WNOHANG)[0]:
                sys.exit("the search ended early")
            time.sleep(0.0005)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        hit.append(trials_of(path) < TRIALS)
    finish(child(lambda: search(config, SEARCHED, again, TRIALS)))
    sys.stdout.write(json.dumps(hit) + "\n")

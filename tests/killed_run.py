"""Kill a run in each of its stages and let it go on; run as a script by test_kill_and_resume.

The parent never computes anything itself, so that each child can be forked with everything imported.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from conrec.config import load_config
from conrec.pipeline import Stage
from conrec.run import Chain, execute
from conrec.workspace import Workspace


def child(config_file: Path, folder: Path) -> int:
    """Fork a process that runs the chain; its process ID."""
    pid = os.fork()
    if pid == 0:
        try:
            execute(load_config(file=config_file), folder)
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return pid


def finish(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    if status != 0:
        sys.exit(f"a run ended with status {status}")


def kill_in_each_stage(config_file: Path, plain: Path, folder: Path) -> list[str]:
    """Kill the run in each stage in turn; names of the stages that were under way when it was killed.

    A training is killed at a share of the time that it took undisturbed, sooner or later within it; any other stage
    as soon as its first output is there, before it is finished.
    """
    stages = Chain(Workspace(folder, load_config(file=config_file))).stages()
    hit = []
    for number, (before, stage) in enumerate(zip([None, *stages], stages, strict=False)):
        pid = child(config_file, folder)
        while before is not None and not (folder / before.manifest).exists():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                sys.exit(f"the run ended with status {status} before {stage.name}")
            time.sleep(0.001)
        if stage.name.startswith("train"):
            time.sleep(json.loads((plain / stage.manifest).read_text())["seconds"] * SHARES[number % len(SHARES)])
        else:
            wait_for_output(folder, stage, pid)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if not (folder / stage.manifest).exists():
            hit.append(stage.name)
    finish(child(config_file, folder))
    return hit


def wait_for_output(folder: Path, stage: Stage, pid: int) -> None:
    """Until the first output of a stage exists, which an earlier attempt has not left there."""
    while not any((folder / name).exists() for name in stage.outputs):
        if os.waitpid(pid, os.WNOHANG)[0]:
            sys.exit(f"the run ended in {stage.name}")
        time.sleep(0.0005)


SHARES = (0.1, 0.4, 0.7)

if __name__ == "__main__":
    config_file, plain, killed = (Path(one) for one in sys.argv[1:4])
    finish(child(config_file, plain))
    hit = kill_in_each_stage(config_file, plain, killed)
    sys.stdout.write(json.dumps(hit) + "\n")

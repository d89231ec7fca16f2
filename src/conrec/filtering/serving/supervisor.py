"""The processes behind one port: started, replaced when they end by themselves, told of signals, waited for."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conrec import errors
from conrec.errors import ConrecError
from conrec.filtering.serving.logs import EventLog
from conrec.filtering.serving.metrics import ENDED, MULTIPROCESS
from conrec.filtering.serving.opening import Source
from conrec.filtering.serving.settings import ServeSettings
from conrec.filtering.stored import chosen_model

__all__ = ["Supervisor"]

LOOK = 0.1
LONGEST_PAUSE = 30.0
"""Seconds before a worker that keeps ending is started again."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass
class _Worker:
    """A process, when it began, and how long to wait before it is started again."""

    process: subprocess.Popen[bytes] | None
    began: float
    pause: float = 0.0
    ended: float = 0.0


class Supervisor:
    """Starts the workers and stays until they have ended.

    The first one opens the filter and, where it cannot, that is an error; the others follow. One that takes the place
    of one that ended keeps everything until it can open the filter: whatever ended the first, a store that was cut
    short under its readers for one, must not leave the port without an answer.

    Workers accept from one listening socket, which this process holds: while one is replaced the others take its
    share, or requests wait, and nobody is refused. A worker whose supervisor is gone ends by itself, for its standard
    input ends then.

    Args:
        source: where the filter is.
        settings: limits and the like.
        bound: the socket.
        log: where it says what happens to the workers.
        started: told what is served once the first worker takes requests: ``store`` of every answer, and ``users``.
    """

    def __init__(
        self,
        source: Source,
        settings: ServeSettings,
        bound: socket.socket,
        log: EventLog,
        started: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._settings, self._bound, self._log, self._started = settings, bound, log, started
        self._source = source
        self._readable, self._writable = os.pipe()  # workers say through it what they serve, or why they do not
        self._told = b""
        self._ended = 0
        self._signals: list[int] = []

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            ConrecError: the first worker could not begin.
        """
        folder = Path(tempfile.mkdtemp(prefix="conrec-metrics-"))
        # One thread each: workers share the cores as it is.
        environment = {**dict.fromkeys(ONE_THREAD, "1"), **os.environ, MULTIPROCESS: str(folder)}
        before = {one: signal.signal(one, self._note) for one in _signals()}
        workers = [self._start(environment, again=False)]
        try:
            if self._begun(workers):
                workers += [self._start(environment) for _ in range(self._settings.workers - 1)]
                while not self._stopping(workers):
                    self._keep_alive(workers, environment, folder)
                    self._listen()
            self._wait(workers)
        finally:
            for worker in workers:
                if worker.process is not None:
                    if worker.process.poll() is None:
                        worker.process.kill()
                        worker.process.wait()
                    _close(worker.process)
            for one, handler in before.items():
                signal.signal(one, handler)
            os.close(self._readable)
            os.close(self._writable)
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _begun(self, workers: list[_Worker]) -> bool:
        """Wait for the first worker; False: a signal came first.

        Raises:
            ConrecError: it could not begin.
        """
        process = workers[0].process
        assert process is not None
        while not self._stopping(workers):
            ended = process.poll()  # before it is listened to: what it said at its end is there
            message = self._listen()
            if "error" in message:
                raise _as_it_was(*message["error"])
            if "served" in message:
                # Its model is known from now on, whatever becomes of the folder.
                self._source = replace(self._source, model=chosen_model(self._source.run, self._source.model))
                if self._started is not None:
                    self._started(message["served"])
                return True
            if ended is not None:
                raise ConrecError(
                    f"the process that serves ended with status {ended} before it took a request",
                    mend="What stands above may say why.",
                )
        return False

    def _listen(self) -> dict[str, Any]:
        """What a worker says, if one does within a moment."""
        if select.select([self._readable], [], [], LOOK)[0]:
            self._told += os.read(self._readable, 65_536)
        line, end, rest = self._told.partition(b"\n")
        if not end:
            return {}
        self._told = rest
        message: dict[str, Any] = json.loads(line)
        return message

    def _start(self, environment: dict[str, str], *, again: bool = True) -> _Worker:
        order = {
            "source": self._source.to_json(),
            "settings": self._settings.model_dump(mode="json"),
            "socket": self._bound.fileno(),
            "tell": self._writable,
            "again": again,
        }
        hang_up = getattr(signal, "SIGHUP", None)
        if hang_up is not None:
            # What is ignored is so in a new process too: a worker that has not set its handler yet would be ended.
            signal.signal(hang_up, signal.SIG_IGN)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "conrec.filtering.serving.worker", json.dumps(order)],
                stdin=subprocess.PIPE,
                env=environment,
                pass_fds=[self._bound.fileno(), self._writable],
                start_new_session=True,  # Ctrl-C is for the supervisor, which tells them
            )
        finally:
            if hang_up is not None:
                signal.signal(hang_up, self._note)
        return _Worker(process, time.monotonic())

    def _stopping(self, workers: list[_Worker]) -> bool:
        """Pass signals on; whether one of them ends it all."""
        ends = False
        while self._signals:
            number = self._signals.pop(0)
            ends |= number != getattr(signal, "SIGHUP", None)
            _tell(workers, number)
        return ends

    def _keep_alive(self, workers: list[_Worker], environment: dict[str, str], folder: Path) -> None:
        """Start again what ended; what ends again and again waits longer and longer."""
        now = time.monotonic()
        for place, worker in enumerate(workers):
            if worker.process is not None:
                if worker.process.poll() is None:
                    continue
                self._log.write("worker ended", "error", status=worker.process.returncode)
                self._ended += 1
                (folder / ENDED).write_text(str(self._ended), encoding="ascii")
                _close(worker.process)
                lived = now - worker.began
                pause = 0.0 if lived > LONGEST_PAUSE else min(LONGEST_PAUSE, worker.pause * 2 or 0.5)
                worker.process, worker.ended, worker.pause = None, now, pause
            if now - worker.ended >= worker.pause:
                workers[place] = self._start(environment)
                workers[place].pause = worker.pause

    def _wait(self, workers: list[_Worker]) -> None:
        """Until all have ended; what hangs is killed at last."""
        self._bound.close()  # the workers have their own: when they close it nobody waits at a port that nobody serves
        patience = self._settings.drain_seconds + self._settings.seconds + 5
        deadline = time.monotonic() + patience
        for worker in workers:
            while worker.process is not None and worker.process.poll() is None and time.monotonic() < deadline:
                self._stopping(workers)
                time.sleep(LOOK / 2)
            if worker.process is not None:
                _close(worker.process)


def _as_it_was(kind: str, found: str, where: str, expected: str, mend: str) -> ConrecError:
    """The error that a worker met, here."""
    of = getattr(errors, kind, ConrecError)
    error: ConrecError = of.__new__(of)
    ConrecError.__init__(error, found, where=where, expected=expected, mend=mend)
    return error


def _signals() -> tuple[int, ...]:
    return tuple(
        getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
    )  # fmt: skip


def _tell(workers: list[_Worker], number: int) -> None:
    for worker in workers:
        if worker.process is not None and worker.process.poll() is None:
            worker.process.send_signal(number)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()

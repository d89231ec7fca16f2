"""`conrec serve` as a real process: started, switched under load, hung up, stopped in the middle of a request."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conrec.cli import app
from conrec.errors import ArtefactError, ConfigError, ConrecError
from conrec.filtering.serving.server import bind
from tests.filtering.serving.test_live import damage, predict, wait_for

TOKEN = "0123456789abcdef"
Build = Callable[[float | None], Path]
QUESTION = json.dumps({"user_id": "ann", "item_ids": ["i0", "i1", "i2", "i3", "i4"]}).encode()
HEADERS = {"content-type": "application/json"}


@dataclass
class Running:
    """A service in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    said: list[str]
    log_file: Path

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and JSON or text of one GET, on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            got = connection.getresponse()
            text = got.read().decode()
            json_like = "json" in (got.getheader("content-type") or "")
            return got.status, json.loads(text) if json_like else text
        finally:
            connection.close()

    def log(self) -> list[dict[str, Any]]:
        """Lines of the log so far."""
        # The service may be in the middle of a line.
        lines = self.log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def refuses(self) -> bool:
        """Whether nothing listens any more."""
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) != 0


@contextmanager
def serving(run: Path, *options: str, **environment: str) -> Iterator[Running]:
    """Start, wait for the lines that say it listens, and see to its end."""
    log_file = run.parent / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "conrec", "serve", "--run", str(run), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **os.environ,
                "TMPDIR": str(run.parent),
                "OMP_NUM_THREADS": "1",
                "NUMBA_DISABLE_JIT": "1",
                **environment,
            },
        )
        try:
            assert process.stdout is not None
            said = [process.stdout.readline().decode() for _ in range(4)]
            assert said[0].startswith("listening at http://127.0.0.1:"), log_file.read_text(encoding="utf-8")
            yield Running(process, int(said[0].split(":")[2].split()[0]), said, log_file)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


@dataclass
class Load:
    """Threads that ask over connections that stay open, and count what is not as it should be."""

    port: int
    stop: threading.Event
    answered: int = 0
    wrong: list[str] | None = None

    def ask(self) -> None:
        """Until told to stop."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stop.is_set():
            try:
                connection.request("POST", "/v1/filter", QUESTION, HEADERS)
                got = connection.getresponse()
                answer = json.loads(got.read())
            except (OSError, ValueError) as error:
                self.wrong = [*(self.wrong or []), repr(error)]
                return
            # Of one store from its first candidate to its last: near i0, or near i4, never a mixture.
            if got.status != 200 or answer["kept"] not in (["i2", "i3", "i4"], ["i0", "i1", "i2", "i3"]):
                self.wrong = [*(self.wrong or []), str(answer)]
            self.answered += 1
        connection.close()


def refuse_heads(port: int) -> None:
    """Heads that are too long, in one piece, in many, after a body, or that never end."""

    def said(*parts: bytes, end: bytes = b"") -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
            answer = b""
            with suppress(ConnectionError):  # closed while there was more to come
                for part in (*parts, end):
                    one.sendall(part)
            with suppress(ConnectionError):
                while came := one.recv(65_536):
                    answer += came
            return answer

    begin, line = b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"x: " + b"y" * 1000 + b"\r\n"
    close = b"connection: close\r\n\r\n"
    assert said(begin, line * 60, end=close).startswith(b"HTTP/1.1 200")
    for long in (
        said(begin + line * 70, end=close),
        said(begin, *[line] * 70, end=close),
        said(begin, b"x: ", *[b"y" * 1000] * 70),
        said(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n" + close),
    ):
        assert long.startswith(b"HTTP/1.1 431 Request Header Fields Too Large")
        assert json.loads(long.partition(b"\r\n\r\n")[2])["error"]["expected"] == "at most 64 KiB"
    posted = b"POST /v1/filter HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    assert b"200 OK" not in said(posted, *[line] * 200)
    many = b"".join(b"%x\r\n%b\r\n" % (1, bytes([one])) for one in QUESTION)
    chunked = posted.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + many + b"0\r\n\r\n"
    assert said(chunked.replace(b"chunked", b"chunked\r\nconnection: close")).startswith(b"HTTP/1.1 200")
    assert b"400 Bad Request" in said(b"no HTTP at all\r\n\r\n")


def test_connections_that_ask_nothing_are_closed(circle_run: Build) -> None:
    with serving(circle_run(0.9), "--drain-seconds", "0", "--seconds", "1.5") as service, ExitStack() as opened:
        silent, half, stray = (
            opened.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=20)) for _ in range(3)
        )
        half.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: ")
        stray.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        # The head and the body may come in two packets.
        while not answer.endswith(b'{"status":"alive"}'):
            part = stray.recv(65_536)
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        stray.sendall(b"\r\n")
        assert silent.recv(65_536) == b""
        assert half.recv(65_536).startswith(b"HTTP/1.1 408 Request Timeout")
        assert stray.recv(65_536) == b""


def test_one_process_from_start_to_end(circle_run: Build) -> None:
    run = circle_run(0.9)
    with serving(run, "--drain-seconds", "0.5") as service:
        assert "store" in service.said[1]
        assert "SIGTERM" in service.said[3]

        refuse_heads(service.port)

        # The store is replaced again and again under load: every answer is of one of them, and none is missing.
        load = Load(service.port, threading.Event())
        threads = [threading.Thread(target=load.ask) for _ in range(2)]
        for one in threads:
            one.start()
        for turn in range(4):
            predict(run, 0 if turn % 2 else 4)
            if turn % 2:
                service.process.send_signal(signal.SIGHUP)
            count = turn + 1
            wait_for(
                lambda count=count: len([one for one in service.log() if one["event"] == "reload"]) >= count  # type: ignore[misc]
            )
        load.stop.set()
        for one in threads:
            one.join()
        assert load.wrong is None
        assert load.answered > 10

        # A store that is cut in half: the old one goes on, and everybody is told.
        before = service.get("/version")[1]["store"]
        damage(run)
        wait_for(lambda: service.get("/ready")[1]["why"] == ["reload failed"])
        assert service.get("/version")[1]["store"] == before
        assert any(line["event"] == "reload" and line["result"] == "failed" for line in service.log())
        assert 'conrec_reloads_total{result="failed"}' in service.get("/metrics")[1]

        # Told to stop in the middle of a request: not ready, then closed, and the request is answered.
        late = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        head = f"POST /v1/filter HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(QUESTION)}"
        late.sendall(f"{head}\r\n\r\n".encode() + QUESTION[:20])
        wait_for(lambda: "conrec_requests_in_flight 2.0" in service.get("/metrics")[1])
        service.process.terminate()
        wait_for(lambda: service.get("/ready")[0] == 503)
        wait_for(service.refuses)
        assert service.process.poll() is None
        late.sendall(QUESTION[20:])
        answer = b""
        while part := late.recv(65_536):
            answer += part
        late.close()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        assert service.process.wait(20) == 0
    events = [line["event"] for line in service.log()]
    assert (events[0], events[-1]) == ("started", "stopped")
    assert "ann" not in service.log_file.read_text(encoding="utf-8")


def test_a_mapped_store_that_is_cut_short_ends_the_worker_and_not_the_service(circle_run: Build) -> None:
    run = circle_run(0.9)
    file = next((run / "filter" / "conrec").glob("data-*.mdb"))
    whole = file.read_bytes()

    def asked() -> tuple[list[str], str | None] | None:
        """What is kept and why; None: the connection broke."""
        connection = HTTPConnection("127.0.0.1", service.port, timeout=20)
        try:
            connection.request("POST", "/v1/filter", QUESTION, HEADERS)
            answer = json.loads(connection.getresponse().read())
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()
        return answer["kept"], answer["reason"]

    with serving(run, "--drain-seconds", "0") as service:
        assert asked() == (["i2", "i3", "i4"], None)
        os.truncate(file, 4096)
        assert asked() is None  # the kernel ends who reads what is no longer there
        wait_for(lambda: asked() == (["i0", "i1", "i2", "i3", "i4"], "kept: store unreachable"), 30)
        assert service.get("/ready")[1]["why"] == ["reload failed", "store unreachable"]
        metrics = service.get("/metrics")[1]
        assert "conrec_workers_ended_total 1.0" in metrics
        assert 'conrec_degraded{why="reload failed"} 1.0' in metrics
        assert service.get("/v1/predict-set?user_id=ann")[0] == 503
        assert service.get("/v1/page/summary")[0] == 200
        events = {line["event"]: line for line in service.log()}
        assert events["worker ended"]["status"] == -signal.SIGBUS
        assert file.name in events["keeps everything"]["error"]
        file.write_bytes(whole)
        wait_for(lambda: asked() == (["i2", "i3", "i4"], None), 20)
        wait_for(lambda: service.get("/ready")[1]["why"] == [], 20)  # the watcher says so a moment after it answers


def test_several_processes(circle_run: Build) -> None:
    run = circle_run(0.9)
    right = {"authorization": f"Bearer {TOKEN}"}

    def workers() -> set[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(service.process.pid)], capture_output=True, check=False
        )
        return {int(one) for one in found.stdout.split()}

    def started() -> int:
        return len([line for line in service.log() if line["event"] == "started"])

    with serving(run, "--workers", "2", "--drain-seconds", "0", CONREC_TOKEN=TOKEN) as service:
        assert "2 processes" in service.said[0]
        assert service.get("/version")[0] == 401
        wait_for(lambda: started() == 2, 30)
        for _ in range(6):
            assert service.get("/v1/predict-set?user_id=ann", **right)[0] == 200
        # Whoever answers counts for both.
        for _ in range(3):
            counted = service.get("/metrics", **right)[1]
            assert 'conrec_requests_total{route="/v1/predict-set",status="200"} 6.0' in counted
        before = workers()
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: started() == 3, 30)
        assert service.get("/version", **right)[0] == 200
        after = workers()
        assert len(after) == 2
        assert after != before
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len([line for line in service.log() if line["event"] == "reload"]) == 2)
        # Killed without a word: its workers end by themselves.
        left = workers()
        service.process.kill()
        service.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{one}").exists() for one in left))
        assert service.refuses()
    assert TOKEN not in service.log_file.read_text(encoding="utf-8")


def invoke(*options: str) -> BaseException | None:
    return CliRunner().invoke(app, ["serve", *options]).exception


def test_what_cannot_be_started_is_said(circle_run: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONREC_TOKEN", raising=False)
    monkeypatch.delenv("CONREC_TOKEN_FILE", raising=False)
    run = str(circle_run(0.9))
    cases: list[tuple[tuple[str, ...], type[ConrecError], str]] = [
        (("--run", str(tmp_path / "nowhere")), ArtefactError, "nowhere"),
        (("--run", run, "--model", "conrek"), ArtefactError, "Did you mean 'conrec'?"),
        (("--run", run, "--workers", "0"), ConfigError, "--workers"),
        (("--run", run, "--max-body-bytes", "-1"), ConfigError, "--max-body-bytes"),
        (("--run", run, "--token-file", str(tmp_path / "token")), ConfigError, "token"),
        (("--run", run, "--host", "no such host"), ConfigError, "no such host"),
    ]
    for options, kind, words in cases:
        error = invoke(*options, *(() if "--port" in options else ("--port", "0")))
        assert isinstance(error, kind), options
        assert words in str(error)
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        error = invoke("--run", run, "--port", str(taken.getsockname()[1]))
    assert isinstance(error, ConfigError)
    assert "Give another --host or --port." in str(error)
    damage(Path(run))
    for workers in ("1", "2"):
        assert isinstance(invoke("--run", run, "--port", "0", "--workers", workers), ArtefactError)


def test_an_address_of_six(circle_run: Build) -> None:
    try:
        with bind("::1", 0) as bound:
            assert bound.family == socket.AF_INET6
    except ConfigError:
        pytest.skip("this machine has no IPv6")

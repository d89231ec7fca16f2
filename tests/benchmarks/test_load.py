"""The load on the service: what it counts, and that a pause is seen by an open loop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from common.load import Load, Measured, measure, read_requests, write_bodies

BODIES = [b'{"a":1}', b'{"b":22}', b""]
Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


async def plain(writer: asyncio.StreamWriter, number: int) -> None:
    """The same answer to everybody, in two parts."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n")
    await asyncio.sleep(0)
    writer.write(b'\r\n{"version":"0123456789abcdef"}')


def run(folder: Path, answer: Answer = plain, **options: float) -> Measured:
    """A load on a small server in the same loop."""
    path = folder / "bodies"
    write_bodies(path, BODIES)
    count = connections = 0
    ended = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count, connections
        connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"POST /v1/filter HTTP/1.1\r\n")
                body = await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
                assert body in BODIES
                count += 1
                await answer(writer, count)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            ended.release()

    async def both() -> Measured:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            found = await measure(Load(port, str(path), connections=4, warm=0.0, **options))  # type: ignore[arg-type]
            for _ in range(connections):
                await ended.acquire()
            await asyncio.sleep(0)
            return found

    return asyncio.run(both())


def test_bodies_come_back(tmp_path: Path) -> None:
    write_bodies(tmp_path / "bodies", BODIES)
    requests = read_requests(tmp_path / "bodies")
    assert [one.split(b"\r\n\r\n", 1)[1] for one in requests] == BODIES
    assert b"Content-Length: 8\r\n" in requests[1]


@pytest.mark.parametrize("rate", [0.0, 300.0])
def test_all_is_answered(tmp_path: Path, rate: float) -> None:
    found = run(tmp_path, rate=rate, seconds=0.3)
    assert found.failures == 0
    assert found.answered > 20
    assert found.versions == {"0123456789abcdef": found.answered}
    assert 0 < found.p50 <= found.p99 <= found.worst
    if rate:
        assert found.answered == pytest.approx(rate * 0.3, rel=0.5)


def test_what_is_not_answered_with_200_has_failed(tmp_path: Path) -> None:
    async def odd(writer: asyncio.StreamWriter, number: int) -> None:
        if number % 3 == 0:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        elif number % 7 == 0:
            writer.close()
        else:
            await plain(writer, number)

    found = run(tmp_path, odd, rate=200.0, seconds=0.3)
    assert found.failed["503"] > 3
    assert found.failed["connection closed"] > 1
    assert found.answered > 10


def test_a_pause_is_seen_by_everything_that_was_due_in_it(tmp_path: Path) -> None:
    async def pausing(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 20:
            time.sleep(0.2)  # the server and the load stand still, as in a long pause of either
        await plain(writer, number)

    found = run(tmp_path, pausing, rate=200.0, seconds=0.5)
    assert found.failures == 0
    # A fifth of a second of 200 a second: some forty requests were due in it, a third of all.
    assert found.worst > 150
    assert found.p99 > 100

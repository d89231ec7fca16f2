"""Load on an HTTP service from a process of its own: ``python -m common.load SPEC`` in benchmarks/, SPEC JSON.

An open loop sends at the times of a Poisson process, whether or not earlier answers have come, and counts an answer's
time from the moment at which its request was due. So a service that falls behind is seen to fall behind: a closed loop,
where each connection waits for its answer before it asks again, would slow down with it and hide that (Tene calls it
coordinated omission). The closed loop is for what a service can do at most.

Connections stay open. A request that finds all of them busy waits for the first that is free, and its time runs.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from common.crowd import Crowd

__all__ = ["Load", "Measured", "ask", "begin", "finish", "write_bodies"]


@dataclass(frozen=True)
class Load:
    """What is asked.

    Attributes:
        port: on 127.0.0.1.
        bodies: file of `write_bodies`; sent one after another, again from the first.
        connections: that are kept open.
        rate: requests a second in an open loop; 0: a closed loop.
        seconds: how long; 0: until standard input ends.
        warm: seconds before that, which are not counted.
        seed: of the times.
    """

    port: int
    bodies: str
    connections: int = 8
    rate: float = 0.0
    seconds: float = 3.0
    warm: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Attributes:
        answered: requests answered with 200.
        failed: what was not, by what happened.
        seconds: from the first counted request to the last answer.
        p50, p99, worst: milliseconds of an answer.
        versions: answers by the store that they name.
    """

    answered: int
    failed: dict[str, int]
    seconds: float
    p50: float
    p99: float
    worst: float
    versions: dict[str, int]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> int:
        """Requests that were not answered with 200."""
        return sum(self.failed.values())


def write_bodies(path: Path, bodies: list[bytes]) -> None:
    """Write bodies of requests, each with its length before it."""
    path.write_bytes(b"".join(struct.pack("<I", len(one)) + one for one in bodies))


def begin(load: Load) -> subprocess.Popen[bytes]:
    """Start to ask, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "common.load", json.dumps(asdict(load))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )


def finish(process: subprocess.Popen[bytes]) -> Measured:
    """Let it end, and what it measured."""
    out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the load ended with status {process.returncode}")
    return Measured(**json.loads(out))


def ask(load: Load) -> Measured:
    """Ask for as long as it is said."""
    process = begin(load)
    try:
        process.wait()
        return finish(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def measure(load: Load) -> Measured:
    """Ask as the load says."""
    crowd = Crowd(load.port, read_requests(Path(load.bodies)), closed=load.rate == 0)
    for _ in range(load.connections):
        await crowd.connect()
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    if load.seconds == 0:
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    begin_at = time.perf_counter()
    crowd.from_time = begin_at + load.warm
    end_at = crowd.from_time + load.seconds if load.seconds else float("inf")
    if load.rate == 0:
        crowd.start_closed()
        await asyncio.sleep(load.warm + load.seconds)
    else:
        chance, due = random.Random(load.seed), begin_at
        while due < end_at and not stopped.is_set():
            now = time.perf_counter()
            if due > now:
                await asyncio.sleep(due - now)
            while due <= time.perf_counter() and due < end_at:
                crowd.due(due)
                due += chance.expovariate(load.rate)
            await asyncio.sleep(0)
    crowd.end()
    try:
        await asyncio.wait_for(crowd.done.wait(), 20)
    except TimeoutError:
        crowd.failed["never answered"] += crowd.in_hand
    for connection in list(crowd.connections):
        if connection.transport is not None:
            connection.transport.close()
    await asyncio.sleep(0)
    times = sorted(crowd.times) or [float("inf")]
    return Measured(
        answered=len(crowd.times),
        failed=dict(crowd.failed),
        seconds=max(crowd.last - crowd.from_time, 1e-9),
        p50=times[len(times) // 2] * 1e3,
        p99=times[min(len(times) - 1, int(len(times) * 0.99))] * 1e3,
        worst=times[-1] * 1e3,
        versions=dict(crowd.versions),
    )


def read_requests(path: Path) -> list[bytes]:
    """Whole requests, from the bodies of `write_bodies`."""
    content, at, requests = path.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<I", content, at)
        body = content[at + 4 : at + 4 + length]
        head = (
            "POST /v1/filter HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {length}\r\n\r\n"
        )
        requests.append(head.encode() + body)
        at += 4 + length
    return requests


def main() -> None:
    """Measure what the command line says; print it as JSON."""
    import uvloop  # noqa: PLC0415  (whoever starts the load needs none)

    load = Load(**json.loads(sys.argv[1]))
    print(json.dumps(asdict(uvloop.run(measure(load)))))


if __name__ == "__main__":
    main()

"""Stores in a folder, and a real server on a free port of this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from conrec.arrays import Array
from conrec.filtering.stores.base import Origin, StoreMeta
from conrec.filtering.stores.writer import write_store

ORIGIN = Origin("m", "w", "h", "c", (64, 64, 64))
BINARY = next((found for name in ("valkey-server", "redis-server") if (found := shutil.which(name))), None)


def random_sets(n: int, slots: int = 20, seed: int = 0) -> tuple[Array, Array]:
    """Codes below 64 and scores."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 64, (n, slots, 3)).astype(np.int32), rng.normal(size=(n, slots)).astype(np.float32)


def fill(folder: Path, users: Sequence[str], seed: int = 0, origin: Origin = ORIGIN, at: int = 36_000) -> StoreMeta:
    """Write a store of three predictions a user."""
    return write_store(folder, users, *random_sets(len(users), 3, seed), origin, written_at=at)


class Server:
    """A server without persistence, which can be killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def address(self, name: str, options: str = "?timeout=2") -> str:
        """The address of a store."""
        return f"valkey://127.0.0.1:{self.port}/{name}{options}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert BINARY is not None
        options = {"--port": str(self.port), "--bind": "127.0.0.1", "--save": "", "--appendonly": "no"}
        words = [BINARY, *(word for pair in options.items() for word in pair), "--dir", str(self.folder)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as client:
                client.settimeout(1)
                try:
                    client.connect(("127.0.0.1", self.port))
                    client.sendall(b"PING\r\n")
                    if client.recv(16).startswith(b"+PONG"):
                        return
                except OSError:
                    pass
            time.sleep(0.01)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        """End it at once; everything it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module; each test uses a name of its own."""
    if BINARY is None:
        pytest.skip("neither valkey-server nor redis-server is on the PATH (Debian: apt-get install redis-server)")
    pytest.importorskip("valkey", reason="the extra 'valkey' is not installed")
    running = Server(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.kill()
